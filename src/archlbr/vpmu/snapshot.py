"""Save a vCPU's LBRs and restore them elsewhere, in the one order that loses nothing.

`save` is what a VMM reads of a stopped vCPU, `restore` what it writes into a fresh one: `machine` stores the bytes. The
order is XSS, DEPTH, the records one by one or by XRSTORS, CTL. XRSTORS without XSS[15] loads nothing, with another
DEPTH it clears, a later DEPTH wipes, and a CTL that comes first lets branches in; `written` refuses every other order.
A target that lacks what the source's guest was told of refuses before anything is written.
Authority: reference kvm-series.md B 17, rows 70 to 75; architecture.md 4.2; decision 024.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs, xsave
from archlbr.arch.cpuid import Leaf1C
from archlbr.arch.vmx import VM_ENTRY_LOAD_IA32_LBR_CTL, VM_EXIT_CLEAR_IA32_LBR_CTL
from archlbr.arch.xsave import COMPONENT_BIT
from archlbr.errors import InputError
from archlbr.lbr.state import ARCH, FORMAT_INFO, FORMAT_INFO2, Entry
from archlbr.lbr.xsaves import load_component
from archlbr.vpmu import nested, vmcs
from archlbr.vpmu.counters import status
from archlbr.vpmu.image import Image, pack, unpack
from archlbr.vpmu.interception import guest_ctl
from archlbr.vpmu.migration import host_write
from archlbr.vpmu.ownership import asked
from archlbr.vpmu.state import Nested, State, with_guest, with_lbr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archlbr.arch.msrs import Msr
    from archlbr.vpmu.cpuid import Rules
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform

NO_LBRS = 0x40
_WITHOUT_L2 = ("nested_offered", "nested_active")


class Part(IntEnum):
    """The parts of the LBR state that depend on each other, by their place in the order."""

    XSS = 0
    DEPTH = 1
    RECORDS = 2
    CTL = 3


class Piece(NamedTuple):
    """One part with what to write: a value for XSS, DEPTH and CTL; for RECORDS (LER, entries), or an XRSTORS image."""

    part: Part
    content: int | tuple[Entry, ...] | bytes


def save(design: Design, platform: Platform, state: State) -> bytes:
    """Return the snapshot of a vCPU; it is taken out of the guest for it, and nothing of it changes."""
    state = vmcs.left(design, platform, state)
    file = state.lbr if state.owned else state.guest
    leaf = state.cpuid.leaf1c or Leaf1C()
    rules, pmu, inner, guest = state.rules, state.pmu, state.nested, state.guest
    image = Image(
        rules.flavour if rules.usable else NO_LBRS, leaf.eax, leaf.ebx, leaf.ecx, rules.xss, rules.pmu,
        guest_ctl(design, state), guest.depth * rules.usable, *file.ler, file.select, file.tos, state.event,
        guest.xss, state.xcr0, guest.debugctl, pmu.capabilities, guest.smm & 1, state.smram,
        pmu.fixed_ctrl, pmu.global_ctrl, status(state),
        nested.offered(design, platform, state), *inner,
        pmu.gp, pmu.selects, pmu.fixed, file.stack if rules.usable else (),
    )  # fmt: skip
    return pack(image)


def restore(design: Design, platform: Platform, state: State, data: bytes, *, xrstors: bool = False) -> State:
    """Return the target with a snapshot in it; InputError with one line, and the target as it was, if it cannot be.

    xrstors: write the records as an XRSTORS image instead of one by one.
    """
    image = unpack(data)
    obstacle = mismatch(design, platform, state, image)
    if obstacle:
        raise InputError(f"cannot restore this vCPU: {obstacle}")
    inner = Nested(
        image.nested_active, image.nested_entry_controls, image.nested_exit_controls, image.nested_passthrough,
        image.nested_l1_ctl, image.nested_l1_debugctl, image.nested_debugctl12,
    )  # fmt: skip
    state = vmcs.left(design, platform, state)._replace(nested=Nested(), xcr0=image.xcr0)
    for msr, values in (
        (msrs.IA32_PERF_CAPABILITIES, (image.perf_capabilities,)),
        (msrs.IA32_PERFEVTSEL, image.msr_gp_evtsel),
        (msrs.IA32_PMC, image.msr_gp_counters),
        (msrs.IA32_FIXED_CTR, image.msr_fixed_counters),
        (msrs.IA32_FIXED_CTR_CTRL, (image.msr_fixed_ctr_ctrl,)),
        (msrs.IA32_PERF_GLOBAL_STATUS, (image.msr_global_status,)),
        (msrs.IA32_PERF_GLOBAL_CTRL, (image.msr_global_ctrl,)),
        (msrs.IA32_DEBUGCTL, (image.msr_debugctl,)),
        *_legacy_registers(image),
    ):
        state = _series(design, platform, state, msr, values)
    state = written(design, platform, state, pieces(image, xrstors=xrstors))
    if image.asked:
        state = asked(design, platform, state)
    guest = state.guest._replace(smm=image.smm)
    return with_guest(state, guest)._replace(smram=image.smram_lbr_ctl, nested=inner)


def _legacy_registers(image: Image) -> tuple[tuple[Msr, tuple[int, ...]], ...]:
    if image.flavour in (ARCH, NO_LBRS):
        return ()
    return (msrs.MSR_LBR_SELECT, (image.lbr_select,)), (msrs.MSR_LASTBRANCH_TOS, (image.lbr_tos,))


def pieces(image: Image, *, xrstors: bool = False) -> tuple[Piece, ...]:
    """Return the parts of an image in the legal order."""
    if image.flavour == NO_LBRS:
        return (Piece(Part.XSS, image.xss),)
    ler = Entry(image.ler_from, image.ler_to, image.ler_info)
    if image.flavour != ARCH:
        return (Piece(Part.XSS, image.xss), Piece(Part.RECORDS, (ler, *image.lbr_records)))
    records = Piece(Part.RECORDS, _component(image, ler) if xrstors else (ler, *image.lbr_records))
    return (
        Piece(Part.XSS, image.xss),
        Piece(Part.DEPTH, image.msr_lbr_depth),
        records,
        Piece(Part.CTL, image.msr_lbr_ctl),
    )


def written(design: Design, platform: Platform, state: State, order: Iterable[Piece]) -> State:
    """Return the state with the parts written; InputError, and nothing changed, unless they come in the legal order."""
    parts = tuple(order)
    ranks = [piece.part for piece in parts]
    needed = list(Part) if state.rules.flavour == ARCH else [part for part in (Part.XSS, Part.RECORDS) if part in ranks]
    if ranks != needed:
        said = ", ".join(part.name for part in ranks)
        raise InputError(f"cannot restore in the order {said}: the one legal order is XSS, DEPTH, RECORDS, CTL")
    for piece in parts:
        state = _write(design, platform, state, piece)
    return state


def _write(design: Design, platform: Platform, state: State, piece: Piece) -> State:
    part, content = piece
    if isinstance(content, bytes):
        return _xrstors(state, content)
    if isinstance(content, tuple):
        return _records(design, platform, state, content)
    if part == Part.XSS and not content and not state.cpuid.leaf0d1.xsaves:
        return state  # without XSAVES there is no IA32_XSS: nothing of it to write
    msr = {Part.XSS: msrs.IA32_XSS, Part.DEPTH: msrs.IA32_LBR_DEPTH}.get(part, msrs.IA32_LBR_CTL)
    return _series(design, platform, state, msr, (content,))


def _records(design: Design, platform: Platform, state: State, content: tuple[Entry, ...]) -> State:
    ler, entries = content[0], content[1:]
    lers: tuple[Msr, ...] = (msrs.IA32_LER_FROM_IP, msrs.IA32_LER_TO_IP, msrs.IA32_LER_INFO)
    blocks: tuple[Msr, ...] = (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO)
    if state.rules.flavour != ARCH:
        lers = lers[:2]
        blocks = (msrs.MSR_LASTBRANCH_FROM_IP, msrs.MSR_LASTBRANCH_TO_IP, msrs.MSR_LBR_INFO)
        blocks = blocks if state.rules.flavour in (FORMAT_INFO, FORMAT_INFO2) else blocks[:2]
    for msr, value in zip(lers if state.rules.ler else (), ler, strict=False):
        state = _series(design, platform, state, msr, (value,))
    for at, msr in enumerate(blocks):
        state = _series(design, platform, state, msr, tuple(entry[at] for entry in entries))
    return state


def _xrstors(state: State, component: bytes) -> State:
    """Return the state after XRSTORS of component 15 on behalf of userspace (KVM_SET_XSAVE)."""
    if not state.guest.xss & COMPONENT_BIT:
        raise InputError("cannot restore by XRSTORS: IA32_XSS[15] is 0 in the snapshot; write the records one by one")
    file = state.lbr if state.owned else state.guest
    loaded = load_component(state.rules.facility, file, component)
    if loaded is None:
        raise InputError("cannot restore this vCPU: XRSTORS refuses the records")
    return with_lbr(state, loaded) if state.owned else with_guest(state, loaded)


def _component(image: Image, ler: Entry) -> bytes:
    # CTL is 0 in it: the guest's CTL comes last.
    content = bytearray(xsave.SIZE)
    struct.pack_into("<5Q", content, 0, 0, image.msr_lbr_depth, *ler)
    for x, entry in enumerate(image.lbr_records):
        struct.pack_into("<3Q", content, xsave.entry(x), *entry)
    return bytes(content)


def _series(design: Design, platform: Platform, state: State, msr: Msr, values: tuple[int, ...]) -> State:
    for x, value in enumerate(values):
        after = host_write(design, platform, state, msr.index + x, value)
        if after is None:
            register = f"{msr.name} ({msr.index + x:X}H)"
            raise InputError(f"cannot restore this vCPU: the target's {register} refuses {value:#x}")
        state = after
    return state


def mismatch(design: Design, platform: Platform, state: State, image: Image) -> str:
    """Return what the target lacks of what the source's guest was told of, or ""."""
    rules = state.rules
    here = rules.flavour if rules.usable else NO_LBRS
    if image.flavour != here:
        return f"the source's LBRs are {_flavour(image.flavour)}, the target's {_flavour(here)}"
    if here == ARCH:
        told = Leaf1C(image.cpuid_1c_eax, image.cpuid_1c_ebx, image.cpuid_1c_ecx)
        leaf = state.cpuid.leaf1c or Leaf1C()
        if not set(told.depths) <= set(leaf.depths) or told.max_depth != leaf.max_depth:
            return f"the source's depths are {told.depths}, the target's {leaf.depths}"
        pairs = zip(("EAX", "EBX", "ECX"), told, leaf, strict=False)
        lacking = [f"{name} {theirs & ~ours:#x}" for name, theirs, ours in pairs if theirs & ~ours]
        if lacking:
            return f"the target's CPUID.1CH lacks {', '.join(lacking)}"
        if image.msr_lbr_depth != len(image.lbr_records):
            return f"it holds {len(image.lbr_records)} records for a DEPTH of {image.msr_lbr_depth}"
    elif len(image.lbr_records) != (rules.facility.max_depth if rules.usable else 0):
        return f"it holds {len(image.lbr_records)} records, the target {rules.facility.max_depth}"
    if image.xss_legal & ~rules.xss:
        return f"the target's IA32_XSS lacks components {image.xss_legal & ~rules.xss:#x}"
    if image.xcr0 & ~(state.cpuid.leaf0d.xcr0_mask | 1):
        return f"the target's XCR0 lacks components {image.xcr0 & ~(state.cpuid.leaf0d.xcr0_mask | 1):#x}"
    if image.pmu_version != rules.pmu:
        return f"the source's PMU is of version {image.pmu_version}, the target's of {rules.pmu}"
    if len(image.msr_gp_counters) != rules.gp or len(image.msr_fixed_counters) != rules.fixed:
        theirs = f"{len(image.msr_gp_counters)} + {len(image.msr_fixed_counters)}"
        return f"the source has {theirs} counters, the target {rules.gp} + {rules.fixed}"
    # A write of a fixed counter drops the bits that are too many; of a general-purpose one it faults.
    if any(value & ~rules.fixed_mask for value in image.msr_fixed_counters):
        wanted = max(image.msr_fixed_counters).bit_length()
        return f"a fixed counter holds {wanted} bits, the target's have {rules.fixed_mask.bit_length()}"
    if image.nested_offered != nested.offered(design, platform, state):
        return "one of the two hosts offers L1 the LBR controls and the other does not"
    return _impossible(image, rules)


def _impossible(image: Image, rules: Rules) -> str:
    """Return which word holds what no vCPU's can, or "": what is written without a register's own check."""
    flags = ("asked", "smm", "nested_active", "nested_passthrough")
    wrong = [name for name in flags if getattr(image, name) > 1]
    freezes = msrs.DEBUGCTL_FREEZE_LBRS | msrs.DEBUGCTL_FREEZE_PERFMON * rules.freezes_counters
    limits = {
        "xcr0": image.xcr0 if image.xcr0 & 1 else 0,
        "nested_entry_controls": VM_ENTRY_LOAD_IA32_LBR_CTL,
        "nested_exit_controls": VM_EXIT_CLEAR_IA32_LBR_CTL,
        "nested_l1_ctl": rules.facility.ctl_legal,
        "msr_debugctl": freezes | msrs.DEBUGCTL_LBR * (image.flavour not in (ARCH, NO_LBRS)),
        "nested_l1_debugctl": freezes | msrs.DEBUGCTL_LBR,
    }
    if image.flavour in (ARCH, NO_LBRS):
        limits |= dict.fromkeys(("lbr_select", "lbr_tos"), 0)
    if image.flavour != ARCH:
        limits |= dict.fromkeys(("msr_lbr_ctl", "ler_info"), 0)
        wrong += ["msr_lbr_depth"] * (image.msr_lbr_depth != rules.facility.max_depth * rules.usable)
    if image.flavour == NO_LBRS:
        limits |= dict.fromkeys(("ler_from", "ler_to"), 0)
    wrong += [name for name, legal in limits.items() if getattr(image, name) & ~legal]
    if not image.nested_active:
        wrong += [name for name in Image._fields if name.startswith("nested_") and name not in _WITHOUT_L2 and
                  getattr(image, name)]  # fmt: skip
    return f"{wrong[0]} holds {getattr(image, wrong[0]):#x}, which no vCPU has" if wrong else ""


def _flavour(flavour: int) -> str:
    return {ARCH: "architectural", NO_LBRS: "off"}.get(flavour, f"of the legacy format {flavour}")
