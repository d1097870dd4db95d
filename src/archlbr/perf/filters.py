"""Branch filters: perf's names, PERF_SAMPLE_BRANCH_* bits, and the IA32_LBR_CTL bits they become.

The command line feeds it names, the host's perf bits; the LBR registers and the perf.data header take what comes out.
Authority: tools/perf/util/parse-branch-options.c (names), include/uapi/linux/perf_event.h (bits),
arch/x86/events/intel/lbr.c (arch_lbr_ctl_map, intel_pmu_setup_sw_lbr_filter); reference architecture.md 6.2.
"""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

from archlbr.arch.branches import CTL_BIT, BranchKind
from archlbr.arch.msrs import CTL_CALL_STACK, CTL_OS, CTL_USR
from archlbr.errors import InputError


class SampleBranch(IntFlag):
    """PERF_SAMPLE_BRANCH_*: what a perf event asks of the branch stack."""

    USER = 1 << 0
    KERNEL = 1 << 1
    HV = 1 << 2
    ANY = 1 << 3
    ANY_CALL = 1 << 4
    ANY_RETURN = 1 << 5
    IND_CALL = 1 << 6
    ABORT_TX = 1 << 7
    IN_TX = 1 << 8
    NO_TX = 1 << 9
    COND = 1 << 10
    CALL_STACK = 1 << 11
    IND_JUMP = 1 << 12
    CALL = 1 << 13
    NO_FLAGS = 1 << 14
    NO_CYCLES = 1 << 15
    TYPE_SAVE = 1 << 16
    HW_INDEX = 1 << 17
    PRIV_SAVE = 1 << 18
    COUNTERS = 1 << 19


# perf's spelling, in perf's order (parse-branch-options.c, branch_modes).
NAMES: dict[str, SampleBranch] = {
    "u": SampleBranch.USER,
    "k": SampleBranch.KERNEL,
    "hv": SampleBranch.HV,
    "any": SampleBranch.ANY,
    "any_call": SampleBranch.ANY_CALL,
    "any_ret": SampleBranch.ANY_RETURN,
    "ind_call": SampleBranch.IND_CALL,
    "abort_tx": SampleBranch.ABORT_TX,
    "in_tx": SampleBranch.IN_TX,
    "no_tx": SampleBranch.NO_TX,
    "cond": SampleBranch.COND,
    "ind_jmp": SampleBranch.IND_JUMP,
    "call": SampleBranch.CALL,
    "no_flags": SampleBranch.NO_FLAGS,
    "no_cycles": SampleBranch.NO_CYCLES,
    "save_type": SampleBranch.TYPE_SAVE,
    "stack": SampleBranch.CALL_STACK,
    "hw_index": SampleBranch.HW_INDEX,
    "priv": SampleBranch.PRIV_SAVE,
    "counter": SampleBranch.COUNTERS,
}

LEVELS = SampleBranch.USER | SampleBranch.KERNEL | SampleBranch.HV
# What says how to record, not which branches; perf counts only LEVELS out when it falls back to `any`.
FORM = (
    SampleBranch.NO_FLAGS
    | SampleBranch.NO_CYCLES
    | SampleBranch.TYPE_SAVE
    | SampleBranch.HW_INDEX
    | SampleBranch.PRIV_SAVE
    | SampleBranch.COUNTERS
)


def _kinds(*kinds: BranchKind) -> int:
    return sum(1 << CTL_BIT[kind] for kind in kinds)


# arch_lbr_ctl_map: the kernel's word, the one place where a perf filter becomes register bits.
CTL_BITS: dict[SampleBranch, int] = {
    SampleBranch.USER: CTL_USR,
    SampleBranch.KERNEL: CTL_OS,
    SampleBranch.HV: 0,
    SampleBranch.ANY: _kinds(*CTL_BIT),
    SampleBranch.ANY_CALL: _kinds(BranchKind.REL_CALL, BranchKind.IND_CALL, BranchKind.OTHER),
    SampleBranch.ANY_RETURN: _kinds(BranchKind.RET, BranchKind.OTHER),
    SampleBranch.IND_CALL: _kinds(BranchKind.IND_CALL),
    SampleBranch.ABORT_TX: 0,
    SampleBranch.IN_TX: 0,
    SampleBranch.NO_TX: 0,
    SampleBranch.COND: _kinds(BranchKind.COND),
    SampleBranch.CALL_STACK: _kinds(BranchKind.REL_CALL, BranchKind.IND_CALL, BranchKind.RET) | CTL_CALL_STACK,
    SampleBranch.IND_JUMP: _kinds(BranchKind.IND_JMP),
    SampleBranch.CALL: _kinds(BranchKind.REL_CALL),
    SampleBranch.NO_FLAGS: 0,
    SampleBranch.NO_CYCLES: 0,
    SampleBranch.TYPE_SAVE: 0,
    SampleBranch.HW_INDEX: 0,
    SampleBranch.PRIV_SAVE: 0,
    SampleBranch.COUNTERS: 0,
}


class BranchFilter(NamedTuple):
    """A filter, resolved. sample_type: PERF_SAMPLE_BRANCH_* bits. lbr_ctl: IA32_LBR_CTL without LBREn."""

    sample_type: int
    lbr_ctl: int


def lbr_ctl(sample_type: int) -> int:
    """Return the IA32_LBR_CTL bits, LBREn left out, that Linux programs for a branch_sample_type."""
    bits = 0
    for flag, ctl in CTL_BITS.items():
        if sample_type & flag:
            bits |= ctl
    return bits


def parse_filter(text: str = "any", levels: int = SampleBranch.USER) -> BranchFilter:
    """Return the filter that `perf record -j TEXT` names; InputError for a name perf does not know.

    levels: the privilege levels when TEXT names none; perf takes them from the event's exclude bits (perf_copy_attr).
    Levels alone mean any branch at these levels, as in parse_branch_str.
    """
    wanted = 0
    for name in text.split(","):
        flag = NAMES.get(name.strip().lower())
        if flag is None:
            known = ", ".join(NAMES)
            raise InputError(f"unknown branch filter {name.strip()!r}: use a comma-separated list of {known}")
        wanted |= flag
    if not wanted & ~(LEVELS | FORM):
        wanted |= SampleBranch.ANY
    if not wanted & LEVELS:
        wanted |= levels
    others = wanted & ~(LEVELS | FORM | SampleBranch.CALL_STACK)
    # The kernel answers -EINVAL (intel_pmu_setup_sw_lbr_filter): call-stack mode has one legal set of branches.
    if wanted & SampleBranch.CALL_STACK and others:
        names = ", ".join(name for name, flag in NAMES.items() if others & flag)
        raise InputError(f"branch filter 'stack' cannot be combined with {names}: name it alone or with u, k")
    return BranchFilter(int(wanted), lbr_ctl(wanted))


def looks_like_filter(word: str) -> bool:
    """Say whether a word of the command line is meant as a filter: a known name, or a list of names."""
    return "," in word or word.lower() in NAMES
