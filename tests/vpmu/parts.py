"""A vCPU under test: plain numbers in, plain numbers and short words out."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from archlbr.arch.cpuid import Leaf0A, Leaf0D, Leaf0D1, Leaf0DComponent, Leaf07, Leaf1C
from archlbr.arch.outcomes import Done, GeneralProtection, Image, UndefinedOpcode, Value
from archlbr.lbr import actions as lbr
from archlbr.lbr.state import architectural, legacy
from archlbr.vpmu import actions
from archlbr.vpmu.cpuid import Cpuid
from archlbr.vpmu.state import platform
from archlbr.vpmu.step import boot, step

if TYPE_CHECKING:
    from archlbr.vpmu.designs import Design

CTL, DEPTH = 0x14CE, 0x14CF
FROM, TO, INFO = 0x1500, 0x1600, 0x1200
LER_FROM, LER_TO, LER_INFO = 0x1DD, 0x1DE, 0x1E0
SELECT, TOS = 0x1C8, 0x1C9
OLD_FROM, OLD_TO, OLD_INFO = 0x680, 0x6C0, 0xDC0
DEBUGCTL, PERF_CAPABILITIES, XSS = 0x1D9, 0x345, 0xDA0
STATUS, GLOBAL_CTRL, STATUS_RESET, STATUS_SET = 0x38E, 0x38F, 0x390, 0x391
PMC, A_PMC, EVTSEL, FIXED, FIXED_CTRL = 0xC1, 0x4C1, 0x186, 0x309, 0x38D
ALL = 0x7F0007  # IA32_LBR_CTL with every kind of either ring
# IA32_DEBUGCTL.FREEZE_LBRS_ON_PMI and FREEZE_WHILE_SMM, IA32_PERF_GLOBAL_STATUS.LBR_FRZ.
FREEZE, FREEZE_SMM, FRZ = 1 << 11, 1 << 14, 1 << 58
# The VMX controls: VM entry loads, VM exit clears IA32_LBR_CTL.
ENTRY, EXIT = 1 << 21, 1 << 26
HIGH = 0xFFFF_8000_0000_0000  # the lowest canonical address of the upper half
SPR = 0x806F8
ARCH_LBR = 1 << 19
LBR_XSS = 0x8000
AVX = (2, Leaf0DComponent(256, 576, 0, 0))
LBRS = (15, Leaf0DComponent(808, 0, 1, 0))
COND = 1
CALL = 4


def leaves(depths=(32,), **other: Any) -> Cpuid:
    """Return the leaves of a Sapphire Rapids guest, or host, with these depths; keywords replace whole leaves."""
    mask = sum(1 << (depth // 8 - 1) for depth in depths)
    made = {
        "signature": SPR,
        "leaf07": Leaf07(edx=ARCH_LBR),
        "leaf0a": Leaf0A.of(5),
        "leaf0d": Leaf0D(7, 0, 0, 0),
        "leaf0d1": Leaf0D1(0xF, 0, LBR_XSS, 0),
        "components": (AVX, LBRS),
        "leaf1c": Leaf1C(mask, 7, 7, 0),
    } | other
    return Cpuid(**made)


def pmu(version: int) -> Leaf0A:
    return Leaf0A.of(version, gp=4, fixed=3)


# No LBR registers by CPUID.
OFF = leaves(leaf07=Leaf07(), leaf0d1=Leaf0D1(0xF, 0, 0, 0), components=(AVX,), leaf1c=None)


class Vcpu:
    """A state that moves, and what it says."""

    def __init__(self, design: Design, host=None, guest=None, host_cpuid=None) -> None:
        self.design = design
        cpuid = host_cpuid or leaves((8, 16, 32))
        options = dict(host or {})
        facility = options.pop("facility", None) or architectural(cpuid.leaf1c, cpuid.leaf0a.version)
        self.platform = platform(facility, cpuid, **options)
        self.state = boot(design, self.platform, leaves() if guest is None else guest)

    def do(self, action: Any) -> Any:
        """Do one action; the outcome as a number or a word."""
        self.state, outcome = step(self.design, self.platform, self.state, action)
        return said(outcome)

    def rd(self, msr: int, cpl: int = 0) -> Any:
        return self.do(lbr.Rdmsr(msr, cpl))

    def wr(self, msr: int, value: int, cpl: int = 0) -> Any:
        return self.do(lbr.Wrmsr(msr, value, cpl))

    def hi(self, msr: int, value: int | None = None) -> Any:
        return self.do(actions.HostRead(msr) if value is None else actions.HostWrite(msr, value))

    def enter(self) -> Any:
        return self.do(actions.VmEntry())

    def exit(self) -> Any:
        return self.do(actions.VmExit())

    def branch(self, source: int, target: int, kind: int = COND, cpl: int = 3) -> None:
        self.do(lbr.Branch(source, target, kind, cpl, cpl))

    def run(self, *branches: tuple[int, int]) -> None:
        """Enter, take branches in ring 3, leave."""
        self.enter()
        for source, target in branches:
            self.branch(source, target)
        self.exit()

    def froms(self, count: int = 4) -> list[Any]:
        return [self.rd(FROM + x) for x in range(count)]

    def xsaves(self) -> dict[str, Any]:
        """Execute XSAVES of component 15; say what is in the image."""
        image = self.do(lbr.Xsaves(bytes(576 + 808)))
        if not isinstance(image, bytes):
            return {"outcome": image}
        xstate = struct.unpack_from("<Q", image, 512)[0]
        ctl, depth = struct.unpack_from("<2Q", image, 576)
        first = [struct.unpack_from("<Q", image, 576 + 40 + 24 * x)[0] for x in range(2)]
        return {"xstate": xstate, "ctl": ctl, "depth": depth, "froms": first}

    def xrstors(self, ctl: int, depth: int, *records: tuple[int, int, int]) -> Any:
        area = bytearray(576 + 808)
        struct.pack_into("<QQ", area, 512, LBR_XSS, 1 << 63 | LBR_XSS)
        struct.pack_into("<2Q", area, 576, ctl, depth)
        for x, record in enumerate(records):
            struct.pack_into("<3Q", area, 576 + 40 + 24 * x, *record)
        return self.do(lbr.Xrstors(bytes(area)))

    @property
    def hardware(self) -> list[int]:
        """Return the FROM fields in the processor, the first four."""
        return [entry.source for entry in self.state.lbr.stack[:4]]


def said(outcome: Any) -> Any:
    """Return an outcome as a number, a word or the value it carries."""
    match outcome:
        case Done():
            return "ok"
        case Value(value):
            return value
        case Image(content):
            return content
        case GeneralProtection():
            return "#GP"
        case UndefinedOpcode():
            return "#UD"
        case actions.Refused():
            return "refused"
        case actions.VmFail(error):
            return f"fail {error}"
        case actions.Reflected():
            return "to L1"
        case actions.Leaves(cpuid):
            return cpuid
        case actions.Indices(msrs):
            return msrs
        case actions.Overflow(status):
            return f"overflow {status:#x}"
        case actions.Text(text):
            return text
        case _:
            return tuple(outcome)


def old_part(design: Design, guest=None, **options: Any) -> Vcpu:
    """Return a vCPU on a host whose LBRs are model-specific: format 5, depth 32, as Skylake's."""
    facility = legacy(5, 32, 4)
    cpuid = OFF._replace(leaf0a=pmu(4))
    return Vcpu(design, {"facility": facility, **options}, cpuid if guest is None else guest, cpuid)


def host_records(v):
    """Perf's session takes the LBRs and has recorded one branch of the host's."""
    v.do(actions.Release())
    v.do(actions.HostControl(ALL))
    v.do(actions.HostBranch(lbr.Branch(0x10, 0x20, 1)))
    v.do(actions.HostControl(0))
