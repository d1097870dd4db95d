"""Every LBR and PMU register once: its index, its fields and who says so.

`lbr.registers` and `vpmu.registers` give each of these its behaviour; `decode` puts them in words. Nothing feeds this
module. The layouts are those of the Intel SDM vol. 4 and vol. 3B, as gathered in reference architecture.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from archlbr.arch.bits import Field, fields, union
from archlbr.errors import LayoutError


@dataclass(frozen=True, slots=True)
class Msr:
    """A register, or `count` registers of one layout at consecutive indices."""

    name: str
    index: int
    count: int
    fields: tuple[Field, ...]
    cite: str

    @property
    def mask(self) -> int:
        """Return the bits that some field claims."""
        return union(self.fields)

    def at(self, x: int) -> int:
        """Return the index of register `x` of the series; LayoutError past its end."""
        if not 0 <= x < self.count:
            raise LayoutError(f"{self.name}: there is no register {x} in a series of {self.count}")
        return self.index + x

    def named(self, name: str) -> Field:
        """Return the field of this name; LayoutError when there is none."""
        for member in self.fields:
            if member.name == name:
                return member
        raise LayoutError(f"{self.name} has no field {name}")


def _msr(name: str, index: int, cite: str, *members: Field, count: int = 1) -> Msr:
    return Msr(name, index, count, fields(*members), cite)


def _address(name: str) -> Field:
    return Field(name, 0, 64, "canonical address")


# The MSR map allows 64 entries as CPUID.1CH:EAX[7:0] does; the manual documents 32 (architecture.md 1.1, 2.1).
ENTRIES = 64

# The architectural facility ----------------------------------------------------------------------------------------

IA32_LBR_CTL = _msr(
    "IA32_LBR_CTL", 0x14CE, "architecture.md 2.2; arch/x86/include/asm/msr-index.h",
    Field("LBREn", 0, 1, "record"),
    Field("OS", 1, 1, "record when CPL = 0"),
    Field("USR", 2, 1, "record when CPL > 0"),
    Field("CALL_STACK", 3, 1, "call-stack mode"),
    Field("JCC", 16, 1, "taken conditional branches"),
    Field("NEAR_REL_JMP", 17, 1, "direct jumps"),
    Field("NEAR_IND_JMP", 18, 1, "indirect jumps"),
    Field("NEAR_REL_CALL", 19, 1, "direct calls"),
    Field("NEAR_IND_CALL", 20, 1, "indirect calls"),
    Field("NEAR_RET", 21, 1, "returns"),
    Field("OTHER_BRANCH", 22, 1, "far transfers, system calls, interrupts, exceptions, aborts"),
)  # fmt: skip
IA32_LBR_DEPTH = _msr(
    "IA32_LBR_DEPTH", 0x14CF, "architecture.md 2.3", Field("DEPTH", 0, 64, "entries in use; a write wipes them")
)


def _info(name: str, index: int, count: int) -> Msr:
    """Return an INFO register: cycle count, event counts, type and flags (architecture.md 2.5)."""
    counts = tuple(Field(f"PMC{n}_CNT", 32 + 2 * n, 2, f"events on counter {n}, at most 3") for n in range(8))
    return _msr(
        name, index, "architecture.md 2.5",
        Field("CYC_CNT", 0, 16, "cycles since the previous entry, at most FFFFH"),
        *counts,
        Field("BR_TYPE", 56, 4, "branch type"),
        Field("CYC_CNT_VALID", 60, 1, "CYC_CNT is meaningful"),
        Field("TSX_ABORT", 61, 1, "the entry is a transaction's abort"),
        Field("IN_TSX", 62, 1, "retired in a transaction"),
        Field("MISPRED", 63, 1, "mispredicted"),
        count=count,
    )  # fmt: skip


IA32_LBR_INFO = _info("IA32_LBR_x_INFO", 0x1200, ENTRIES)
IA32_LBR_FROM_IP = _msr("IA32_LBR_x_FROM_IP", 0x1500, "architecture.md 2.4", _address("FROM_IP"), count=ENTRIES)
IA32_LBR_TO_IP = _msr("IA32_LBR_x_TO_IP", 0x1600, "architecture.md 2.4", _address("TO_IP"), count=ENTRIES)
IA32_LER_FROM_IP = _msr("IA32_LER_FROM_IP", 0x1DD, "architecture.md 4.3", _address("FROM_IP"))
IA32_LER_TO_IP = _msr("IA32_LER_TO_IP", 0x1DE, "architecture.md 4.3", _address("TO_IP"))
IA32_LER_INFO = _msr(
    "IA32_LER_INFO", 0x1E0, "architecture.md 4.3",
    Field("BR_TYPE", 56, 4, "branch type"),
    Field("TSX_ABORT", 61, 1, "the entry is a transaction's abort"),
    Field("IN_TSX", 62, 1, "retired in a transaction"),
    Field("MISPRED", 63, 1, "mispredicted"),
)  # fmt: skip

# The legacy facility -----------------------------------------------------------------------------------------------

MSR_LBR_SELECT = _msr(
    "MSR_LBR_SELECT", 0x1C8, "architecture.md 5",
    Field("CPL_EQ_0", 0, 1, "suppress ring 0"),
    Field("CPL_NEQ_0", 1, 1, "suppress rings 1 to 3"),
    Field("JCC", 2, 1, "suppress conditional branches"),
    Field("NEAR_REL_CALL", 3, 1, "suppress direct calls"),
    Field("NEAR_IND_CALL", 4, 1, "suppress indirect calls"),
    Field("NEAR_RET", 5, 1, "suppress returns"),
    Field("NEAR_IND_JMP", 6, 1, "suppress indirect jumps"),
    Field("NEAR_REL_JMP", 7, 1, "suppress direct jumps"),
    Field("FAR_BRANCH", 8, 1, "suppress far branches"),
    Field("EN_CALLSTACK", 9, 1, "call-stack mode"),
)  # fmt: skip
MSR_LASTBRANCH_TOS = _msr("MSR_LASTBRANCH_TOS", 0x1C9, "architecture.md 5", Field("TOS", 0, 5, "newest entry"))
MSR_LASTBRANCH_FROM_IP = _msr("MSR_LASTBRANCH_x_FROM_IP", 0x680, "architecture.md 5", _address("FROM_IP"), count=32)
MSR_LASTBRANCH_TO_IP = _msr("MSR_LASTBRANCH_x_TO_IP", 0x6C0, "architecture.md 5", _address("TO_IP"), count=32)
MSR_LBR_INFO = _msr(
    "MSR_LBR_INFO_x", 0xDC0, "architecture.md 5",
    Field("CYC_CNT", 0, 16, "cycles since the previous entry, at most FFFFH"),
    Field("TSX_ABORT", 61, 1, "the entry is a transaction's abort"),
    Field("IN_TSX", 62, 1, "retired in a transaction"),
    Field("MISPRED", 63, 1, "mispredicted"),
    count=32,
)  # fmt: skip

# What both facilities answer to ------------------------------------------------------------------------------------

IA32_DEBUGCTL = _msr(
    "IA32_DEBUGCTL", 0x1D9, "architecture.md 1.3; arch/x86/include/asm/msr-index.h",
    Field("LBR", 0, 1, "legacy enable; reads 0 with the architectural facility"),
    Field("BTF", 1, 1, "single-step on branches"),
    Field("BLD", 2, 1, "#DB on bus lock"),
    Field("TR", 6, 1, "branch trace messages"),
    Field("BTS", 7, 1, "branch trace store"),
    Field("BTINT", 8, 1, "interrupt on a full BTS buffer"),
    Field("BTS_OFF_OS", 9, 1, "no BTS in ring 0"),
    Field("BTS_OFF_USR", 10, 1, "no BTS in rings 1 to 3"),
    Field("FREEZE_LBRS_ON_PMI", 11, 1, "freeze the LBRs on a PMI"),
    Field("FREEZE_PERFMON_ON_PMI", 12, 1, "freeze the counters on a PMI"),
    Field("ENABLE_UNCORE_PMI", 13, 1, "deliver uncore PMIs"),
    Field("FREEZE_WHILE_SMM", 14, 1, "no tracing and counting in SMM"),
    Field("RTM_DEBUG", 15, 1, "advanced debugging of transactions"),
)  # fmt: skip
IA32_PERF_CAPABILITIES = _msr(
    "IA32_PERF_CAPABILITIES", 0x345, "architecture.md 1.2, 3.8",
    Field("LBR_FMT", 0, 6, "format of the LBR entries"),
    Field("PEBS_TRAP", 6, 1, "PEBS is a trap"),
    Field("PEBS_ARCH_REG", 7, 1, "PEBS saves the architectural registers"),
    Field("PEBS_FMT", 8, 4, "format of the PEBS records"),
    Field("FREEZE_WHILE_SMM", 12, 1, "DEBUGCTL[14] is there"),
    Field("FW_WRITE", 13, 1, "counters can be written in full width"),
    Field("PEBS_BASELINE", 14, 1, "adaptive PEBS"),
    Field("PERF_METRICS", 15, 1, "the metrics counter is there"),
)  # fmt: skip
IA32_XSS = _msr(
    "IA32_XSS", 0xDA0, "architecture.md 1.1, 4.2",
    Field("PT", 8, 1), Field("PASID", 10, 1), Field("CET_U", 11, 1), Field("CET_S", 12, 1), Field("HDC", 13, 1),
    Field("UINTR", 14, 1), Field("ARCH_LBR", 15, 1, "XSAVES and XRSTORS serve component 15"), Field("HWP", 16, 1),
)  # fmt: skip
MSR_PEBS_DATA_CFG = _msr(
    "MSR_PEBS_DATA_CFG", 0x3F2, "architecture.md 3.8",
    Field("MEMORY_INFO", 0, 1), Field("GPRS", 1, 1), Field("XMMS", 2, 1), Field("LBRS", 3, 1, "the LBR group"),
    Field("LBR_ENTRIES", 24, 8, "entries in the LBR group, less 1"),
)  # fmt: skip

# The performance monitoring unit -----------------------------------------------------------------------------------

IA32_PMC = _msr("IA32_PMCx", 0xC1, "SDM vol. 4", Field("COUNT", 0, 64), count=8)
IA32_A_PMC = _msr("IA32_A_PMCx", 0x4C1, "SDM vol. 4", Field("COUNT", 0, 64, "full-width alias"), count=8)
IA32_PERFEVTSEL = _msr(
    "IA32_PERFEVTSELx", 0x186, "SDM vol. 4; bit 35: architecture.md 6.5",
    Field("EVENT", 0, 8), Field("UMASK", 8, 8), Field("USR", 16, 1), Field("OS", 17, 1), Field("EDGE", 18, 1),
    Field("PC", 19, 1), Field("INT", 20, 1, "PMI on overflow"), Field("ANY", 21, 1), Field("EN", 22, 1),
    Field("INV", 23, 1), Field("CMASK", 24, 8), Field("IN_TX", 32, 1), Field("IN_TXCP", 33, 1),
    Field("LBR_LOG", 35, 1, "log this counter's events in LBR_INFO"),
    count=8,
)  # fmt: skip
IA32_FIXED_CTR = _msr("IA32_FIXED_CTRx", 0x309, "SDM vol. 4", Field("COUNT", 0, 64), count=4)
IA32_FIXED_CTR_CTRL = _msr(
    "IA32_FIXED_CTR_CTRL", 0x38D, "SDM vol. 4",
    *(
        member
        for n in range(4)
        for member in (
            Field(f"EN{n}", 4 * n, 2, "0 off, 1 ring 0, 2 rings 1 to 3, 3 all"),
            Field(f"ANY{n}", 4 * n + 2, 1),
            Field(f"PMI{n}", 4 * n + 3, 1, "PMI on overflow"),
        )
    ),
)  # fmt: skip


def _status(name: str, index: int, cite: str) -> Msr:
    """Return a register in the layout of IA32_PERF_GLOBAL_STATUS (PMU version 4)."""
    return _msr(
        name, index, cite,
        *(Field(f"OVF_PMC{n}", n, 1) for n in range(8)),
        *(Field(f"OVF_FIXED{n}", 32 + n, 1) for n in range(4)),
        Field("OVF_PERF_METRICS", 48, 1), Field("TRACE_TOPA_PMI", 55, 1),
        Field("LBR_FRZ", 58, 1, "the LBRs are frozen"), Field("CTR_FRZ", 59, 1, "the counters are frozen"),
        Field("ASCI", 60, 1), Field("OVF_UNCORE", 61, 1), Field("OVF_BUFFER", 62, 1), Field("COND_CHGD", 63, 1),
    )  # fmt: skip


IA32_PERF_GLOBAL_STATUS = _status("IA32_PERF_GLOBAL_STATUS", 0x38E, "architecture.md 3.6")
IA32_PERF_GLOBAL_CTRL = _msr(
    "IA32_PERF_GLOBAL_CTRL", 0x38F, "SDM vol. 4",
    *(Field(f"EN_PMC{n}", n, 1) for n in range(8)),
    *(Field(f"EN_FIXED{n}", 32 + n, 1) for n in range(4)),
    Field("EN_PERF_METRICS", 48, 1),
)  # fmt: skip
IA32_PERF_GLOBAL_STATUS_RESET = _status("IA32_PERF_GLOBAL_STATUS_RESET", 0x390, "architecture.md 3.6")
IA32_PERF_GLOBAL_STATUS_SET = _status("IA32_PERF_GLOBAL_STATUS_SET", 0x391, "SDM vol. 4")

MSRS: tuple[Msr, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Msr))


def _claims(registers: tuple[Msr, ...]) -> dict[int, tuple[Msr, int]]:
    """Return index -> (register, x); LayoutError when two registers claim one index."""
    claimed: dict[int, tuple[Msr, int]] = {}
    for register in registers:
        for x in range(register.count):
            index = register.index + x
            if index in claimed:
                raise LayoutError(f"{register.name} and {claimed[index][0].name} both claim MSR {index:X}H")
            claimed[index] = (register, x)
    return claimed


BY_INDEX: dict[int, tuple[Msr, int]] = _claims(MSRS)

# What the hot code uses, as plain integers.
CTL_LBREN = IA32_LBR_CTL.named("LBREn").mask
CTL_OS = IA32_LBR_CTL.named("OS").mask
CTL_USR = IA32_LBR_CTL.named("USR").mask
CTL_CALL_STACK = IA32_LBR_CTL.named("CALL_STACK").mask
CTL_KINDS = 0x7F << 16
SELECT_CPL_EQ_0 = MSR_LBR_SELECT.named("CPL_EQ_0").mask
SELECT_CPL_NEQ_0 = MSR_LBR_SELECT.named("CPL_NEQ_0").mask
SELECT_CALL_STACK = MSR_LBR_SELECT.named("EN_CALLSTACK").mask
DEBUGCTL_LBR = IA32_DEBUGCTL.named("LBR").mask
DEBUGCTL_FREEZE_LBRS = IA32_DEBUGCTL.named("FREEZE_LBRS_ON_PMI").mask
DEBUGCTL_FREEZE_PERFMON = IA32_DEBUGCTL.named("FREEZE_PERFMON_ON_PMI").mask
DEBUGCTL_FREEZE_SMM = IA32_DEBUGCTL.named("FREEZE_WHILE_SMM").mask
LBR_FRZ = IA32_PERF_GLOBAL_STATUS.named("LBR_FRZ").mask
CTR_FRZ = IA32_PERF_GLOBAL_STATUS.named("CTR_FRZ").mask
INFO_CYC_VALID = IA32_LBR_INFO.named("CYC_CNT_VALID").mask
INFO_ABORT = IA32_LBR_INFO.named("TSX_ABORT").mask
INFO_IN_TX = IA32_LBR_INFO.named("IN_TSX").mask
INFO_MISPRED = IA32_LBR_INFO.named("MISPRED").mask
LER_INFO_MASK = IA32_LER_INFO.mask
CYC_CNT_MAX = 0xFFFF
