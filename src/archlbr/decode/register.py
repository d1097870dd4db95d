"""One register's value in words: a row a field, the reserved bits that are set, and what the value means as a whole.

Fed by `arch.msrs` and a value, shown by `cli/decode.py`. Each note cites its rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs
from archlbr.arch.branches import BR_TYPE, BranchKind
from archlbr.decode.names import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

KIND_OF_TYPE = {code: kind for kind, code in BR_TYPE.items()}
CALL_STACK_KINDS = 0b111000 << 16  # NEAR_REL_CALL, NEAR_IND_CALL, NEAR_RET (architecture.md 3.3)

INFOS = (msrs.IA32_LBR_INFO, msrs.IA32_LER_INFO, msrs.MSR_LBR_INFO)

# IA32_PERF_CAPABILITIES[5:0] (architecture.md 5; 3FH is UNCONFIRMED (mem), 1.2).
LBR_FORMATS = {
    0: "32-bit addresses, or no LBRs",
    1: "linear addresses",
    2: "effective addresses",
    3: "effective addresses, MISPRED in FROM[63]",
    4: "effective addresses, MISPRED, IN_TX and ABORT in FROM[63:61]",
    5: "flags in INFO",
    6: "MISPRED in FROM[63], cycles in TO[63:48]",
    7: "flags in INFO, no transactions",
    0x3F: "no legacy LBRs: Architectural LBR only (UNCONFIRMED)",
}


class Row(NamedTuple):
    """One field of a value. high, low: its bits. words: what this content means."""

    name: str
    high: int
    low: int
    value: int
    words: str


class Register(NamedTuple):
    """A register's value in words.

    msr: its index. reserved: the set bits no field claims. notes: sentences about the whole value.
    """

    name: str
    msr: int
    value: int
    rows: tuple[Row, ...]
    reserved: int
    notes: tuple[str, ...]


def branch_type(code: int) -> str:
    """Return the word for a BR_TYPE code (architecture.md 2.5)."""
    if code & 8:
        return BranchKind.OTHER.name  # 1xxxB: hardware may subdivide it (UNCONFIRMED (mem))
    kind = KIND_OF_TYPE.get(code)
    return kind.name if kind is not None else "reserved"  # 011xB (UNCONFIRMED (mem))


def describe(index: int, value: int) -> Register:
    """Put the value of the register at `index`, one of `arch.msrs.BY_INDEX`, in words."""
    register, x = msrs.BY_INDEX[index]
    rows = tuple(_row(register, member.name, member.low, member.width, member.of(value)) for member in register.fields)
    reserved = value & ~register.mask
    notes = _unclaimed(register, reserved) + NOTES.get(register.index, _no_notes)(value)
    return Register(name_of(register, x), index, value, rows, reserved, notes)


def _row(register: msrs.Msr, name: str, low: int, width: int, content: int) -> Row:
    words = register.named(name).meaning
    if name == "BR_TYPE":
        words = f"{words}: {branch_type(content)}"
    elif name == "LBR_FMT":
        words = f"{words}: {LBR_FORMATS.get(content, 'unknown')}"
    return Row(name, low + width - 1, low, content, words)


def _unclaimed(register: msrs.Msr, bits: int) -> tuple[str, ...]:
    if not bits:
        return ()
    # The manual calls those of INFO undefined: they may be written (architecture.md 2.5).
    word = "undefined" if register in INFOS else "reserved"
    return (f"{word} bits are set: {', '.join(str(bit) for bit in range(64) if bits >> bit & 1)}",)


def _no_notes(_value: int) -> tuple[str, ...]:
    return ()


def _ctl_notes(value: int) -> tuple[str, ...]:
    notes = []
    kinds = value & msrs.CTL_KINDS
    if not value & msrs.CTL_LBREN:
        notes.append("off: LBREn is 0")
    if not kinds:
        notes.append("nothing is recorded: CTL[22:16] names the branches to include (architecture.md 2.2)")
    if not value & (msrs.CTL_OS | msrs.CTL_USR):
        notes.append("nothing is recorded: neither OS nor USR is set (UNCONFIRMED, architecture.md 2.2)")
    if value & msrs.CTL_CALL_STACK and kinds != CALL_STACK_KINDS:
        notes.append("call-stack mode wants NEAR_REL_CALL, NEAR_IND_CALL and NEAR_RET alone (architecture.md 3.3)")
    return tuple(notes)


def _depth_notes(value: int) -> tuple[str, ...]:
    if value in range(8, 65, 8):
        return (f"{value} entries, where CPUID.1CH:EAX[{value // 8 - 1}] is set",)
    return ("no processor enumerates this depth: WRMSR faults (architecture.md 2.3)",)


def _address_notes(value: int) -> tuple[str, ...]:
    if value == 0:
        return ("no entry: readers stop here (architecture.md 2.4)",)
    top = value >> 47
    return () if top in (0, 0x1FFFF) else ("not canonical with 48-bit addresses (architecture.md 2.4)",)


def _info_notes(value: int) -> tuple[str, ...]:
    if value & msrs.INFO_CYC_VALID:
        return ()
    return ("CYC_CNT is not to be used: CYC_CNT_VALID is 0 (architecture.md 2.5)",)


def _select_notes(value: int) -> tuple[str, ...]:
    return () if value else ("nothing is suppressed: each branch is recorded (architecture.md 5)",)


NOTES: dict[int, Callable[[int], tuple[str, ...]]] = {
    msrs.IA32_LBR_CTL.index: _ctl_notes,
    msrs.IA32_LBR_DEPTH.index: _depth_notes,
    msrs.IA32_LBR_INFO.index: _info_notes,
    msrs.MSR_LBR_SELECT.index: _select_notes,
    **{
        register.index: _address_notes
        for register in msrs.MSRS
        if [member.name for member in register.fields] in (["FROM_IP"], ["TO_IP"])
    },
}
