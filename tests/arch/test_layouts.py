"""The registers' layouts: what the import refuses, and each index and field as the manual has it."""

from __future__ import annotations

import pytest

from archlbr.arch import msrs
from archlbr.arch.bits import Field, fields, union
from archlbr.arch.msrs import Msr, _claims
from archlbr.errors import LayoutError


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fields(Field("A", 0, 2), Field("B", 1, 1)), "field B: bits 0x2 overlap 0x2"),
        (lambda: fields(Field("A", 0, 1), Field("A", 1, 1)), "field A: named twice"),
        (lambda: Field("A", 63, 2), r"bits 64:63 do not fit"),
        (lambda: Field("A", -1, 1), "do not fit"),
        (lambda: Field("A", 3, 0), "do not fit"),
        (lambda: Field("A", 0, 2).put(0, 4), "0x4 does not fit in 2 bits"),
        (lambda: _claims((Msr("A", 1, 2, (), ""), Msr("B", 2, 1, (), ""))), "B and A both claim MSR 2H"),
        (lambda: msrs.IA32_LBR_INFO.at(64), "no register 64 in a series of 64"),
        (lambda: msrs.IA32_LBR_CTL.named("JMP"), "IA32_LBR_CTL has no field JMP"),
    ],
)
def test_a_wrong_layout_is_refused(build, message):
    with pytest.raises(LayoutError, match=message):
        build()


# Index and width of each series, from the tables of architecture.md 2.1, 5 and SDM vol. 4.
MAP = [
    (msrs.IA32_LBR_CTL, 0x14CE, 1, "2.1"),
    (msrs.IA32_LBR_DEPTH, 0x14CF, 1, "2.1"),
    (msrs.IA32_LBR_INFO, 0x1200, 64, "2.1"),
    (msrs.IA32_LBR_FROM_IP, 0x1500, 64, "2.1"),
    (msrs.IA32_LBR_TO_IP, 0x1600, 64, "2.1"),
    (msrs.IA32_LER_FROM_IP, 0x1DD, 1, "2.1"),
    (msrs.IA32_LER_TO_IP, 0x1DE, 1, "2.1"),
    (msrs.IA32_LER_INFO, 0x1E0, 1, "2.1"),
    (msrs.IA32_DEBUGCTL, 0x1D9, 1, "1.3"),
    (msrs.IA32_PERF_CAPABILITIES, 0x345, 1, "1.2"),
    (msrs.MSR_LBR_SELECT, 0x1C8, 1, "5"),
    (msrs.MSR_LASTBRANCH_TOS, 0x1C9, 1, "5"),
    (msrs.MSR_LASTBRANCH_FROM_IP, 0x680, 32, "5"),
    (msrs.MSR_LASTBRANCH_TO_IP, 0x6C0, 32, "5"),
    (msrs.MSR_LBR_INFO, 0xDC0, 32, "5"),
    (msrs.MSR_PEBS_DATA_CFG, 0x3F2, 1, "3.8"),
    (msrs.IA32_XSS, 0xDA0, 1, "4.2"),
    (msrs.IA32_PMC, 0xC1, 8, "SDM vol. 4"),
    (msrs.IA32_A_PMC, 0x4C1, 8, "SDM vol. 4"),
    (msrs.IA32_PERFEVTSEL, 0x186, 8, "SDM vol. 4"),
    (msrs.IA32_FIXED_CTR, 0x309, 4, "SDM vol. 4"),
    (msrs.IA32_FIXED_CTR_CTRL, 0x38D, 1, "SDM vol. 4"),
    (msrs.IA32_PERF_GLOBAL_STATUS, 0x38E, 1, "3.6"),
    (msrs.IA32_PERF_GLOBAL_CTRL, 0x38F, 1, "SDM vol. 4"),
    (msrs.IA32_PERF_GLOBAL_STATUS_RESET, 0x390, 1, "3.6"),
    (msrs.IA32_PERF_GLOBAL_STATUS_SET, 0x391, 1, "SDM vol. 4"),
]


@pytest.mark.parametrize(("msr", "index", "count", "cite"), MAP, ids=[f"{row[3]} {row[0].name}" for row in MAP])
def test_a_register_stands_at_its_index(msr, index, count, cite):
    assert (msr.index, msr.count) == (index, count)
    assert msrs.BY_INDEX[index] == (msr, 0)
    assert msrs.BY_INDEX[index + count - 1] == (msr, count - 1)
    assert index + count not in msrs.BY_INDEX or msrs.BY_INDEX[index + count][0] is not msr
    assert msr.at(count - 1) == index + count - 1


def test_the_map_is_complete():
    assert {row[0].name for row in MAP} == {msr.name for msr in msrs.MSRS}


# (register, field, high bit, low bit), from architecture.md.
FIELDS = [
    (msrs.IA32_LBR_CTL, "LBREn", 0, 0, "2.2"), (msrs.IA32_LBR_CTL, "OS", 1, 1, "2.2"),
    (msrs.IA32_LBR_CTL, "USR", 2, 2, "2.2"), (msrs.IA32_LBR_CTL, "CALL_STACK", 3, 3, "2.2"),
    (msrs.IA32_LBR_CTL, "JCC", 16, 16, "2.2"), (msrs.IA32_LBR_CTL, "NEAR_REL_JMP", 17, 17, "2.2"),
    (msrs.IA32_LBR_CTL, "NEAR_IND_JMP", 18, 18, "2.2"), (msrs.IA32_LBR_CTL, "NEAR_REL_CALL", 19, 19, "2.2"),
    (msrs.IA32_LBR_CTL, "NEAR_IND_CALL", 20, 20, "2.2"), (msrs.IA32_LBR_CTL, "NEAR_RET", 21, 21, "2.2"),
    (msrs.IA32_LBR_CTL, "OTHER_BRANCH", 22, 22, "2.2"),
    (msrs.IA32_LBR_INFO, "CYC_CNT", 15, 0, "2.5"), (msrs.IA32_LBR_INFO, "PMC0_CNT", 33, 32, "2.5"),
    (msrs.IA32_LBR_INFO, "PMC7_CNT", 47, 46, "2.5"), (msrs.IA32_LBR_INFO, "BR_TYPE", 59, 56, "2.5"),
    (msrs.IA32_LBR_INFO, "CYC_CNT_VALID", 60, 60, "2.5"), (msrs.IA32_LBR_INFO, "TSX_ABORT", 61, 61, "2.5"),
    (msrs.IA32_LBR_INFO, "IN_TSX", 62, 62, "2.5"), (msrs.IA32_LBR_INFO, "MISPRED", 63, 63, "2.5"),
    (msrs.IA32_LER_INFO, "BR_TYPE", 59, 56, "4.3"), (msrs.IA32_LER_INFO, "TSX_ABORT", 61, 61, "4.3"),
    (msrs.IA32_LER_INFO, "IN_TSX", 62, 62, "4.3"), (msrs.IA32_LER_INFO, "MISPRED", 63, 63, "4.3"),
    (msrs.IA32_DEBUGCTL, "LBR", 0, 0, "1.3"), (msrs.IA32_DEBUGCTL, "BTF", 1, 1, "1.3"),
    (msrs.IA32_DEBUGCTL, "BLD", 2, 2, "1.3"), (msrs.IA32_DEBUGCTL, "TR", 6, 6, "1.3"),
    (msrs.IA32_DEBUGCTL, "BTS", 7, 7, "1.3"), (msrs.IA32_DEBUGCTL, "BTINT", 8, 8, "1.3"),
    (msrs.IA32_DEBUGCTL, "BTS_OFF_OS", 9, 9, "1.3"), (msrs.IA32_DEBUGCTL, "BTS_OFF_USR", 10, 10, "1.3"),
    (msrs.IA32_DEBUGCTL, "FREEZE_LBRS_ON_PMI", 11, 11, "1.3"),
    (msrs.IA32_DEBUGCTL, "FREEZE_PERFMON_ON_PMI", 12, 12, "1.3"),
    (msrs.IA32_DEBUGCTL, "ENABLE_UNCORE_PMI", 13, 13, "1.3"),
    (msrs.IA32_DEBUGCTL, "FREEZE_WHILE_SMM", 14, 14, "1.3"), (msrs.IA32_DEBUGCTL, "RTM_DEBUG", 15, 15, "1.3"),
    (msrs.MSR_LBR_SELECT, "CPL_EQ_0", 0, 0, "5"), (msrs.MSR_LBR_SELECT, "CPL_NEQ_0", 1, 1, "5"),
    (msrs.MSR_LBR_SELECT, "JCC", 2, 2, "5"), (msrs.MSR_LBR_SELECT, "NEAR_REL_CALL", 3, 3, "5"),
    (msrs.MSR_LBR_SELECT, "NEAR_IND_CALL", 4, 4, "5"), (msrs.MSR_LBR_SELECT, "NEAR_RET", 5, 5, "5"),
    (msrs.MSR_LBR_SELECT, "NEAR_IND_JMP", 6, 6, "5"), (msrs.MSR_LBR_SELECT, "NEAR_REL_JMP", 7, 7, "5"),
    (msrs.MSR_LBR_SELECT, "FAR_BRANCH", 8, 8, "5"), (msrs.MSR_LBR_SELECT, "EN_CALLSTACK", 9, 9, "5"),
    (msrs.IA32_PERF_CAPABILITIES, "LBR_FMT", 5, 0, "1.2"),
    (msrs.IA32_PERF_CAPABILITIES, "PEBS_BASELINE", 14, 14, "3.8"),
    (msrs.MSR_PEBS_DATA_CFG, "LBRS", 3, 3, "3.8"), (msrs.MSR_PEBS_DATA_CFG, "LBR_ENTRIES", 31, 24, "3.8"),
    (msrs.IA32_PERF_GLOBAL_STATUS, "LBR_FRZ", 58, 58, "3.6"),
    (msrs.IA32_PERFEVTSEL, "LBR_LOG", 35, 35, "6.5"), (msrs.IA32_XSS, "ARCH_LBR", 15, 15, "1.1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("msr", "name", "high", "low", "cite"), FIELDS, ids=[f"{row[4]} {row[0].name}.{row[1]}" for row in FIELDS]
)
def test_a_field_has_its_bits(msr, name, high, low, cite):
    field = msr.named(name)
    assert (field.low + field.width - 1, field.low) == (high, low)
    assert field.put(0, (1 << field.width) - 1) == msr.mask & (1 << high + 1) - (1 << low)
    assert field.of(((1 << 64) - 1) ^ field.mask) == 0


@pytest.mark.parametrize(
    ("msr", "mask"),
    [
        pytest.param(msrs.IA32_LBR_CTL, 0x7F000F, id="2.2 legal mask"),
        pytest.param(msrs.IA32_LBR_INFO, 0xFF00_FFFF_0000_FFFF, id="2.5 31:16 and 55:48 are undefined"),
        pytest.param(msrs.IA32_LER_INFO, 0xEF00_0000_0000_0000, id="4.3 55:0 and 60 are undefined"),
        pytest.param(msrs.IA32_DEBUGCTL, 0xFFC7, id="1.3 the bits in use"),
        pytest.param(msrs.MSR_LBR_SELECT, 0x3FF, id="5 suppression bits and call stack"),
    ],
)
def test_the_bits_in_use(msr, mask):
    assert msr.mask == mask
    assert union(msr.fields) == mask
