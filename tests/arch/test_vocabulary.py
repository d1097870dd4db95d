"""Branch kinds, transfers, component 15 and VMX, each against the tables of the reference."""

from __future__ import annotations

import pytest

from archlbr.arch import vmx, xsave
from archlbr.arch.branches import BR_TYPE, CTL_BIT, PERF_TYPE, SELECT_BIT, BranchKind
from archlbr.arch.outcomes import DONE, GP, UD, Value
from archlbr.arch.transfers import EVENT, KIND, TRANSFERS, Source, Transfer, recorded_ip
from archlbr.errors import LayoutError

# kind, CTL bit (2.2), BR_TYPE (2.5), LBR_SELECT bit (5), perf type (6.3).
KINDS = [
    ("COND", 16, 0, 2, 1), ("REL_JMP", 17, 2, 7, 2), ("IND_JMP", 18, 1, 6, 3), ("REL_CALL", 19, 4, 3, 4),
    ("IND_CALL", 20, 3, 4, 5), ("RET", 21, 5, 5, 6), ("OTHER", 22, 8, 8, 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ctl", "br_type", "select", "perf"), KINDS, ids=[f"2.2 2.5 5 {k[0]}" for k in KINDS])
def test_a_kind_has_a_number_in_each_register(name, ctl, br_type, select, perf):
    kind = BranchKind[name]
    assert (CTL_BIT[kind], BR_TYPE[kind], SELECT_BIT[kind], PERF_TYPE[kind]) == (ctl, br_type, select, perf)


TRANSFER_ROWS = [
    ("JCC", "COND", "INSTRUCTION", 0), ("JRCXZ", "COND", "INSTRUCTION", 0), ("LOOP", "COND", "INSTRUCTION", 0),
    ("JMP_REL", "REL_JMP", "INSTRUCTION", 0), ("JMP_IND", "IND_JMP", "INSTRUCTION", 0),
    ("CALL_REL", "REL_CALL", "INSTRUCTION", 0), ("CALL_NEXT", "NONE", "NOTHING", 0),
    ("CALL_IND", "IND_CALL", "INSTRUCTION", 0), ("RET_NEAR", "RET", "INSTRUCTION", 0),
    ("JMP_FAR", "OTHER", "INSTRUCTION", 0), ("CALL_FAR", "OTHER", "INSTRUCTION", 0),
    ("RET_FAR", "OTHER", "INSTRUCTION", 0), ("SYSCALL", "OTHER", "INSTRUCTION", 0),
    ("SYSRET", "OTHER", "INSTRUCTION", 0), ("SYSENTER", "OTHER", "INSTRUCTION", 0),
    ("SYSEXIT", "OTHER", "INSTRUCTION", 0), ("INT_N", "OTHER", "INSTRUCTION", 1),
    ("INT3", "OTHER", "INSTRUCTION", 1), ("INTO", "OTHER", "INSTRUCTION", 1), ("INT1", "NONE", "NOTHING", 0),
    ("IRET", "OTHER", "INSTRUCTION", 0), ("INTERRUPT", "OTHER", "NEXT", 1), ("EXCEPTION", "OTHER", "INSTRUCTION", 1),
    ("RSM", "OTHER", "RESUMED", 0), ("INIT", "OTHER", "NEXT", 0), ("SIPI", "OTHER", "NEXT", 0),
    ("TSX_ABORT", "OTHER", "INSTRUCTION", 0), ("ENCLAVE", "OTHER", "INSTRUCTION", 0),
    ("USER_INTERRUPT", "OTHER", "NEXT", 0), ("UIRET", "OTHER", "INSTRUCTION", 0),
    ("DEBUG_EXCEPTION", "NONE", "NOTHING", 0), ("SMI", "NONE", "NOTHING", 0), ("VM_ENTRY", "NONE", "NOTHING", 0),
    ("VM_EXIT", "NONE", "NOTHING", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "source", "event"), TRANSFER_ROWS, ids=[f"3.1 {r[0]}" for r in TRANSFER_ROWS])
def test_a_transfer_is_classified(name, kind, source, event):
    transfer = Transfer[name]
    row = TRANSFERS[transfer]
    assert row == (transfer, BranchKind[kind], Source[source], event)
    assert (KIND[transfer], EVENT[transfer]) == (BranchKind[kind], event)


def test_every_transfer_has_a_row():
    assert [row[0] for row in TRANSFER_ROWS] == [transfer.name for transfer in Transfer]


@pytest.mark.parametrize(
    ("ip", "base", "lip", "long_mode", "recorded"),
    [
        pytest.param(0x1234, 0x10000, False, False, 0x1234, id="3.1 EAX[31]=0 records offsets"),
        pytest.param(0x1234, 0x10000, True, False, 0x11234, id="3.1 EAX[31]=1 records linear addresses"),
        pytest.param(0xFFFFFFF0, 0x20, True, False, 0x10, id="3.1 linear addresses outside 64-bit mode wrap at 4 GiB"),
        pytest.param(0x7FFF12345678, 0x10000, True, True, 0x7FFF12345678, id="3.1 in 64-bit code the two coincide"),
        pytest.param(0x7FFF12345678, 0, False, True, 0x7FFF12345678, id="3.1 in 64-bit code the two coincide (0)"),
    ],
)
def test_the_address_a_record_holds(ip, base, lip, long_mode, recorded):
    assert recorded_ip(ip, base, lip=lip, long_mode=long_mode) == recorded


def test_component_15_byte_by_byte():
    assert (xsave.CTL, xsave.DEPTH, xsave.LER_FROM, xsave.LER_TO, xsave.LER_INFO) == (0, 8, 16, 24, 32)
    assert [xsave.entry(x) for x in (0, 1, 31)] == [40, 64, 784]
    assert (xsave.ENTRY_FROM, xsave.ENTRY_TO, xsave.ENTRY_INFO) == (0, 8, 16)
    assert (xsave.SIZE, xsave.COMPONENT_OFFSET, xsave.AREA_SIZE) == (808, 576, 1384)
    assert (xsave.XSTATE_BV, xsave.XCOMP_BV, xsave.COMPONENT_BIT) == (512, 520, 0x8000)
    with pytest.raises(LayoutError, match="entries 0 to 31, not 32"):
        xsave.entry(32)


@pytest.mark.parametrize(
    ("xcomp_bv", "offset"),
    [
        pytest.param(0x8000_0000_0000_8000, 576, id="4.1 alone it starts at byte 576"),
        pytest.param(0x8000_0000_0000_8007, 832, id="after 256 bytes of AVX"),
        pytest.param(0x8000_0000_0000_9800, 608, id="after CET_U, CET_S"),
        pytest.param(0x8000_0000_0000_C800, 640, id="after CET_U and 48 bytes of UINTR"),
    ],
)
def test_where_component_15_starts(xcomp_bv, offset):
    sizes = {2: (256, False), 11: (16, False), 12: (16, False), 14: (48, False)}
    assert xsave.compacted_offset(xcomp_bv, sizes) == offset


def test_an_aligned_component_moves_to_a_multiple_of_64():
    assert xsave.compacted_offset(1 << 63 | 0x8000 | 0b1100, {2: (8, False), 3: (8, True)}) == 648
    with pytest.raises(LayoutError, match="names component 3"):
        xsave.compacted_offset(1 << 63 | 0x8008, {})


def test_vmx_controls():
    assert (vmx.GUEST_IA32_LBR_CTL, vmx.GUEST_IA32_LBR_CTL_HIGH) == (0x2816, 0x2817)
    assert (vmx.VM_ENTRY_LOAD_IA32_LBR_CTL, vmx.VM_EXIT_CLEAR_IA32_LBR_CTL) == (0x0020_0000, 0x0400_0000)
    # 3.7: Arrow Lake's capability MSRs, then the same without either bit.
    assert vmx.controls_offered(0xFF7FFFFF << 32, 0x007EFFFF << 32) is True
    assert vmx.controls_offered(0xFB7FFFFF << 32, 0x007EFFFF << 32) is False
    assert vmx.controls_offered(0xFF7FFFFF << 32, 0x005EFFFF << 32) is False


def test_outcomes_are_values():
    assert (GP.vector, UD.vector) == (13, 6)
    assert Value(5) == Value(5)
    assert len({DONE, GP, UD}) == 3
