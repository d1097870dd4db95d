"""The faults of XSAVE and its kin on the board: which, in what order, where, and that nothing has changed."""

from __future__ import annotations

import struct

import pytest
from unicorn import x86_const as x86

from tests.machine.areas import (
    ALL,
    AREA,
    BEFORE,
    COMPACTED,
    CTL,
    FULL,
    GP,
    LBR,
    NM,
    PAGED,
    PF,
    SAVES,
    SS,
    STATES,
    TABLES,
    UD,
    XSS,
    Fault,
    Guest,
    header,
    registers,
    saving,
    state,
    wide,
    written,
    wrmsr,
    xsetbv,
)

# Faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("xrstor", header(4, 0), GP),  # a component that XCR0 lacks
        ("xrstor", header(LBR, 0), GP),
        ("xrstor", header(0, 1), GP),  # XCOMP_BV, in the standard format
        ("xrstor", header(0, 0, b16=1), GP),
        ("xrstor", header(0, 0, b23=1), GP),
        ("xrstor", header(0, 0, b24=1), None),  # is not looked at
        ("xrstor", header(0, 0, b63=1), None),
        ("xrstor", header(0, COMPACTED | 3, b16=1), GP),
        ("xrstor", header(0, COMPACTED | 3, b24=1), GP),
        ("xrstor", header(0, COMPACTED | 3, b63=1), GP),
        ("xrstor", header(2, COMPACTED | 1), GP),  # XSTATE_BV has more than XCOMP_BV
        ("xrstor", header(0, COMPACTED | 4), GP),
        ("xrstor", header(0, COMPACTED | LBR), GP),  # IA32_XSS does not count here
        ("xrstor", header(COMPACTED, COMPACTED), GP),
        ("xrstors", header(0, 0), GP),  # the standard format
        ("xrstors", header(0, 3), GP),
        ("xrstors", header(0, COMPACTED | LBR), None),
        ("xrstors", header(0, COMPACTED | 1 << 14), GP),
        ("xrstors", header(LBR, COMPACTED), GP),
        ("xrstors", header(0, COMPACTED, b40=1), GP),
    ],
)
def test_headers_that_fault(guest: Guest, name: str, content: bytes, fault: int | None) -> None:
    guest.put(AREA, STATES["used"] + content)
    guest.set_state(STATES["one vector"])
    met = saving(guest, name, 0)
    assert met == (None if fault is None else Fault(fault, 0, 15))
    assert guest.state == STATES["one vector"]


@pytest.mark.parametrize(
    ("compacted", "bitmap", "rfbm", "fault"),
    [(0, 2, 2, GP), (0, 0, 2, GP), (0, 0, 1, None), (COMPACTED | 2, 2, 2, GP), (COMPACTED | 2, 0, 2, None)],
)
def test_reserved_bits_of_mxcsr(guest: Guest, compacted: int, bitmap: int, rfbm: int, fault: int | None) -> None:
    guest.put(AREA, state(mxcsr=0x11F80, xmm1=3) + struct.pack("<QQ", bitmap, compacted))
    guest.set_state(STATES["used"])
    assert saving(guest, "xrstor", rfbm) == (None if fault is None else Fault(fault, 0, 15))
    if fault is not None:
        assert guest.state == STATES["used"]


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_stands_in_the_way_of_any_of_them(guest: Guest, name: str) -> None:
    code = wide(ALL[name])
    cr4, cr0 = guest.register("CR4"), guest.register("CR0")
    try:
        guest.uc.reg_write(x86.UC_X86_REG_CR4, cr4 & ~(1 << 18))
        assert guest.run(registers(edi=AREA, eax=3) + code) == Fault(UD, 0, 10)
        guest.uc.reg_write(x86.UC_X86_REG_CR4, cr4)
        guest.uc.reg_write(x86.UC_X86_REG_CR0, cr0 | 8)
        assert guest.run(registers(edi=AREA + 1, eax=3) + code) == Fault(NM, 0, 10)  # before #GP of the address
    finally:
        guest.uc.reg_write(x86.UC_X86_REG_CR4, cr4)
        guest.uc.reg_write(x86.UC_X86_REG_CR0, cr0)
    for off in (1, 16, 32):
        assert saving(guest, name, 3, AREA + off) == Fault(GP, 0, 15)
    for prefix in (b"\xf0", b"\x66", b"\xf3", b"\xf2"):
        assert guest.run(registers(edi=AREA, eax=3) + prefix + ALL[name]) == Fault(UD, 0, 10), prefix
    beyond = struct.pack("<Q", 1 << 47)
    assert guest.run(b"\x48\xbf" + beyond + code) == Fault(GP, 0, 10)  # mov rdi, 800000000000h
    of_the_stack = code[:-1] + bytes((code[-1] & 0x38 | 0x45, 0))  # the operand at [rbp]
    assert guest.run(b"\x48\xbd" + beyond + of_the_stack) == Fault(SS, 0, 10)
    last = b"\x48\xbf" + struct.pack("<Q", (1 << 47) - 64)  # its header lies beyond
    assert guest.run(last + code) == Fault(GP, 0, 10)
    in_between = b"\x48\xbf" + struct.pack("<Q", (1 << 47) - 4096)
    assert guest.run(in_between + code) == Fault(PF, 2 if name in SAVES else 0, 10)  # canonical, and not there


def test_in_ring_3_the_supervisors_forms_fault() -> None:
    guest = Guest()
    assert guest.run(xsetbv(3) + wrmsr(XSS, LBR)) is None
    guest.page({})
    for name, code in ALL.items():
        guest.put(AREA, bytes(len(BEFORE)))
        met = guest.run_in_ring_3(registers(edi=AREA, eax=3) + wide(code))
        assert met == Fault(GP, 0, 10 if name in ("xsaves", "xrstors") else 14), name
    assert guest.run_in_ring_3(xsetbv(3)) == Fault(GP, 0, 15)
    assert guest.run_in_ring_3(registers(ecx=0) + b"\x0f\x01\xd0") == Fault(GP, 0, 8)  # XGETBV is for all
    assert (guest.register("RAX"), guest.register("RDX")) == (3, 0)


# A page of the area is missing: the number of pages that are there, and the address of the fault.
LAST = PAGED + 4096


@pytest.mark.parametrize(
    ("name", "rfbm", "area", "pages", "address", "error"),
    [
        ("xsave", 3, LAST - 512, {1: 0}, LAST, 2),  # the legacy region there, the header not
        ("xsave", 3, LAST - 512, {1: 5}, LAST, 3),  # there, but not to be written
        ("xsave", 3, LAST - 64, {0: 0}, LAST - 64, 2),
        ("xsaves", LBR | 3, LAST - 576, {1: 0}, LAST, 2),  # all there but the component
        ("xsaves", LBR, LAST - 512, {0: 0}, None, 0),  # the legacy region is not asked for
        ("xrstor", 3, LAST - 512, {1: 0}, LAST, 0),
        ("xrstor", 3, LAST - 512, {0: 0}, LAST - 512, 0),  # the header there, the legacy region not
        ("xrstors", 3, LAST - 512, {1: 5}, None, 0),
        ("xrstors", LBR | 3, LAST - 576, {1: 0}, LAST, 0),
    ],
)
def test_page_faults_come_before_the_first_byte(
    name: str, rfbm: int, area: int, pages: dict[int, int], address: int | None, error: int
) -> None:
    guest = Guest()
    assert guest.run(xsetbv(3) + wrmsr(XSS, LBR) + wrmsr(CTL, 2)) is None
    guest.set_state(STATES["used"])
    guest.page(pages)
    content = STATES["one vector"] + header(LBR | 3, 0 if name == "xrstor" else COMPACTED | LBR | 3)
    if name == "xrstor":
        content = STATES["one vector"] + header(3, 0)
    content += struct.pack("<2Q", 4, 32).ljust(808, b"\0")
    guest.put(area, content)
    met = saving(guest, name, rfbm, area)
    if address is None:
        assert met is None
        return
    assert met == Fault(PF, error, 15)
    assert guest.register("CR2") == address
    assert guest.get(area, len(content)) == content
    assert guest.state == STATES["used"]
    assert guest.board.vcpu.rdmsr(CTL) == 2
    guest.page({})  # and once the page is there, it goes on
    assert saving(guest, name, rfbm, area) is None
    if name.startswith("xr"):
        assert guest.state == STATES["one vector"]
        assert guest.board.vcpu.rdmsr(CTL) == (4 if rfbm & LBR else 2)


@pytest.mark.parametrize("area", [LAST - 64, LAST - 512, LAST - 576, LAST - 1344])
def test_an_area_over_two_pages_lies_where_the_pages_lie(area: int) -> None:
    guest = Guest()
    assert guest.run(xsetbv(3) + wrmsr(XSS, LBR) + wrmsr(CTL, 2)) is None
    guest.page({})
    elsewhere = PAGED + 5 * 4096
    guest.put(TABLES + 0x3000 + 8, struct.pack("<Q", elsewhere | 7))  # the second page
    guest.put(area, BEFORE[: LAST - area])
    guest.put(LAST, b"\x55" * 4096)
    guest.put(elsewhere, BEFORE[LAST - area :])
    guest.set_state(STATES["used"])
    assert saving(guest, "xsaves", LBR | 3, area) is None
    lbrs = struct.pack("<2Q", 2, 32).ljust(808, b"\0")
    legacy = written(STATES["used"], BEFORE, FULL, LBR | 3, COMPACTED | LBR | 3)
    expected = legacy[:576] + lbrs + legacy[1384:]
    assert guest.get(area, LAST - area) + guest.get(elsewhere, len(BEFORE) - (LAST - area)) == expected
    assert guest.get(LAST, 4096) == b"\x55" * 4096
    guest.set_state(STATES["initial"])
    assert guest.run(wrmsr(CTL, 0)) is None
    assert saving(guest, "xrstors", LBR | 3, area) is None
    assert guest.state == STATES["used"]
    assert guest.board.vcpu.rdmsr(CTL) == 2


def test_fs_and_gs_have_their_bases(guest: Guest) -> None:
    for msr, prefix in ((0xC0000100, b"\x64"), (0xC0000101, b"\x65")):
        guest.put(AREA, BEFORE)
        # xsavec64 fs:[disp32]
        code = prefix + b"\x48\x0f\xc7\x24\x25" + struct.pack("<I", AREA - 0x3000)
        assert guest.run(wrmsr(msr, 0x3000) + registers(eax=3, edx=0) + code) is None
        assert guest.get(AREA, 528) == BEFORE[:512] + struct.pack("<2Q", 0, COMPACTED | 3)
        assert guest.run(wrmsr(msr, 0)) is None
