"""CPUID leaves 07H, 0AH, 0DH and 1CH in words, and where they contradict one another.

Fed by `dump`, shown by `cli/decode.py`; `probe` takes the contradictions. Authority: reference architecture.md 1.1;
users-and-peers.md 3.2, bugs 1 and 2, for what happens when they disagree.
"""

from __future__ import annotations

from typing import NamedTuple

from archlbr.arch import cpuid, xsave
from archlbr.decode.dump import Leaf, Leaves

NONE = Leaf(0, 0, 0, 0)


class Facts(NamedTuple):
    """One leaf: rows of (key, words, content). present: whether the dump has it; without it the rows say nothing."""

    leaf: str
    present: bool
    rows: tuple[tuple[str, str, int | bool | tuple[int, ...]], ...]


def describe_leaves(leaves: Leaves) -> tuple[Facts, ...]:
    """Put the leaves that concern branch records in words."""
    leaf_07 = cpuid.Leaf07(*leaves.get((7, 0), NONE))
    leaf_0a = cpuid.Leaf0A(*leaves.get((0xA, 0), NONE))
    leaf_0d1 = cpuid.Leaf0D1(*leaves.get((0xD, 1), NONE))
    component = cpuid.Leaf0DComponent(*leaves.get((0xD, xsave.COMPONENT), NONE))
    leaf_1c = cpuid.Leaf1C(*leaves.get((0x1C, 0), NONE))
    counters = tuple(n for n in range(4) if leaf_1c.event_counters >> n & 1)
    return (
        Facts(
            "07H",
            (7, 0) in leaves,
            (("arch_lbr", "Architectural LBR", leaf_07.arch_lbr), ("rtm", "transactions (RTM)", leaf_07.rtm)),
        ),
        Facts(
            "0AH",
            (0xA, 0) in leaves,
            (
                ("version", "PMU version", leaf_0a.version),
                ("gp_counters", "general-purpose counters", leaf_0a.gp_counters),
                ("gp_width", "their width in bits", leaf_0a.gp_width),
                ("fixed_counters", "fixed counters", leaf_0a.fixed_counters),
                ("fixed_width", "width of the fixed in bits", leaf_0a.fixed_width),
            ),
        ),
        Facts(
            "0DH.01H",
            (0xD, 1) in leaves,
            (
                ("xsaves", "XSAVES and XRSTORS", leaf_0d1.xsaves),
                ("xss_15", "IA32_XSS may hold component 15", bool(leaf_0d1.xss_mask & xsave.COMPONENT_BIT)),
            ),
        ),
        Facts(
            "0DH.0FH",
            (0xD, xsave.COMPONENT) in leaves,
            (
                ("size", "size in bytes", component.size),
                ("offset", "offset in the standard format", component.offset),
                ("supervisor", "supervisor component", component.supervisor),
                ("aligned", "aligned to 64 bytes", component.aligned),
            ),
        ),
        Facts(
            "1CH",
            (0x1C, 0) in leaves,
            (
                ("depths", "legal depths", leaf_1c.depths),
                ("deep_c_reset", "a deep C-state may clear the entries", leaf_1c.deep_c_reset),
                ("lip", "addresses are linear", leaf_1c.lip),
                ("cpl_filter", "CPL filtering", leaf_1c.cpl_filter),
                ("branch_filter", "branch filtering", leaf_1c.branch_filter),
                ("call_stack", "call-stack mode", leaf_1c.call_stack),
                ("mispredict", "mispredict bit", leaf_1c.mispredict),
                ("timed", "cycle counts", leaf_1c.timed),
                ("branch_type", "branch type", leaf_1c.branch_type),
                ("event_counters", "counters with event logging", counters),
            ),
        ),
    )


def contradictions(leaves: Leaves) -> tuple[str, ...]:
    """Return where the leaves disagree about Architectural LBR, a sentence each; empty when they agree."""
    claimed = cpuid.Leaf07(*leaves.get((7, 0), NONE)).arch_lbr
    leaf_0d1 = cpuid.Leaf0D1(*leaves.get((0xD, 1), NONE))
    component = cpuid.Leaf0DComponent(*leaves.get((0xD, xsave.COMPONENT), NONE))
    leaf_1c = cpuid.Leaf1C(*leaves.get((0x1C, 0), NONE))
    offered = bool(leaf_0d1.xss_mask & xsave.COMPONENT_BIT)
    found = []
    if claimed and not leaf_1c.depths:
        found.append("07H:EDX[19] is 1, yet 1CH:EAX[7:0] names no depth")
    if not claimed and leaf_1c.depths:
        found.append("07H:EDX[19] is 0, yet 1CH:EAX[7:0] names depths")
    if not claimed and offered:
        found.append("07H:EDX[19] is 0, yet 0DH.01H:ECX[15] offers component 15")
    if offered and component.size != xsave.SIZE:
        found.append(f"component 15 has {component.size} bytes where {xsave.SIZE} are needed")
    if offered and not leaf_0d1.xsaves:
        found.append("0DH.01H:ECX[15] offers component 15, yet 0DH.01H:EAX[3] has no XSAVES")
    if any(leaf_1c.reserved):
        found.append("reserved bits of 1CH are set: " + " ".join(f"{word:#x}" for word in leaf_1c.reserved))
    return tuple(found)
