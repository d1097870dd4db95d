"""XSAVE and its kin on the board: what they write and load of x87 and SSE state, and what CPUID says of them.

The expected bytes are worked out by hand from SDM vol. 1, chapter 13; and this processor writes the same, where it has
the instructions.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unicorn import x86_const as x86

from tests.machine.areas import (
    ALL,
    AREA,
    BEFORE,
    COMPACTED,
    FULL,
    GP,
    HEADER,
    LBR,
    RESTORES,
    SAVES,
    STATES,
    UD,
    XSS,
    Fault,
    Guest,
    Native,
    has,
    header,
    registers,
    saving,
    state,
    written,
    wrmsr,
    xsetbv,
)

# The form, EDX:EAX, the state: the spans that are written, XSTATE_BV, XCOMP_BV (SDM vol. 1, 13.7, 13.9 to 13.11).
WRITTEN: list[tuple[str, int, str, tuple[str, ...], int, int]] = [
    ("xsave", 3, "used", FULL, 3, 0),
    ("xsave", 3, "initial", FULL, 0, 0),
    ("xsave", 1, "used", ("control", "stack"), 1, 0),
    ("xsave", 2, "used", ("mxcsr", "vectors"), 2, 0),
    ("xsave", 0, "used", (), 0, 0),
    ("xsave", 3, "mxcsr", FULL, 0, 0),
    ("xsave", 3, "one control word", FULL, 1, 0),
    ("xsave", 3, "one vector", FULL, 2, 0),
    ("xsaveopt", 3, "used", FULL, 3, 0),
    ("xsaveopt", 3, "initial", ("mxcsr",), 0, 0),
    ("xsaveopt", 3, "mxcsr", ("mxcsr",), 0, 0),
    ("xsaveopt", 1, "initial", (), 0, 0),
    ("xsaveopt", 3, "one vector", ("mxcsr", "vectors"), 2, 0),
    ("xsavec", 3, "used", FULL, 3, COMPACTED | 3),
    ("xsavec", 3, "initial", (), 0, COMPACTED | 3),
    ("xsavec", 3, "mxcsr", ("mxcsr", "vectors"), 2, COMPACTED | 3),
    ("xsavec", 1, "mxcsr", (), 0, COMPACTED | 1),
    ("xsavec", 3, "one control word", ("control", "stack"), 1, COMPACTED | 3),
    ("xsavec", 0, "used", (), 0, COMPACTED),
    ("xsaves", 3, "used", FULL, 3, COMPACTED | 3),
    ("xsaves", 3, "initial", (), 0, COMPACTED | 3),
    ("xsaves", 2, "used", ("mxcsr", "vectors"), 2, COMPACTED | 2),
]


needs_instructions = pytest.mark.skipif(
    not has("xsave", "xsaveopt", "xsavec"), reason="needs a processor with XSAVEC and XSAVEOPT"
)


# What is written ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rfbm", "held", "spans", "bitmap", "compacted"), WRITTEN)
def test_the_legacy_region_and_the_header(
    guest: Guest, name: str, rfbm: int, held: str, spans: tuple[str, ...], bitmap: int, compacted: int
) -> None:
    guest.set_state(STATES[held])
    assert saving(guest, name, rfbm | 0xFFFF_FFFF_FFFF_0004) is None  # what XCR0 and IA32_XSS lack asks for nothing
    expected = written(STATES[held], BEFORE, spans, bitmap, compacted)
    assert guest.get(AREA, len(BEFORE)) == expected


@needs_instructions
@pytest.mark.parametrize(
    ("name", "rfbm", "held", "spans", "bitmap", "compacted"), [row for row in WRITTEN if row[0] != "xsaves"]
)
def test_this_processor_writes_the_same(
    name: str, rfbm: int, held: str, spans: tuple[str, ...], bitmap: int, compacted: int
) -> None:
    area, _ = Native().run(SAVES[name], STATES[held], BEFORE, rfbm)
    assert area == written(STATES[held], BEFORE, spans, bitmap, compacted)


def test_xsave_leaves_the_bits_of_components_that_were_not_asked_for(guest: Guest) -> None:
    guest.set_state(STATES["used"])
    guest.put(AREA + HEADER, struct.pack("<3Q", 0x8000_0000_0000_0006, 5, 7))
    assert saving(guest, "xsave", 1) is None
    assert struct.unpack("<3Q", guest.get(AREA + HEADER, 24)) == (0x8000_0000_0000_0007, 5, 7)
    assert saving(guest, "xsave", 2) is None
    guest.set_state(STATES["initial"])
    assert saving(guest, "xsave", 2) is None
    assert struct.unpack("<3Q", guest.get(AREA + HEADER, 24)) == (0x8000_0000_0000_0005, 5, 7)


def states() -> st.SearchStrategy[bytes]:
    # All exceptions masked and none pending, so that loading them here raises none.
    vectors = st.lists(st.integers(0, (1 << 128) - 1) | st.just(0), min_size=16, max_size=16)
    stacks = st.lists(st.integers(0, (1 << 80) - 1) | st.just(0), min_size=8, max_size=8)

    def made(fcw: int, fsw: int, ftw: int, mxcsr: int, stack: list[int], vector: list[int]) -> bytes:
        words = {f"st{index}": value for index, value in enumerate(stack)}
        words |= {f"xmm{index}": value for index, value in enumerate(vector)}
        return state(fcw=0x7F | fcw << 8, fsw=fsw << 8, ftw=ftw, mxcsr=0x1F80 | mxcsr, **words)

    return st.builds(
        made,
        st.integers(0, 15),
        st.integers(0, 0x7F),
        st.integers(0, 255),
        st.integers(0, 0x3F) | st.sampled_from((0x2000, 0x8040)),
        st.just([0] * 8) | stacks,
        st.just([0] * 16) | vectors,
    )


@needs_instructions
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(states(), states(), st.sampled_from(sorted(SAVES)), st.integers(0, 3), st.integers(0, 3))
def test_guest_and_processor_write_and_load_the_same(
    guest: Guest, held: bytes, other: bytes, name: str, rfbm: int, loads: int
) -> None:
    processor, before = Native(), bytes(512 + 64)
    guest.put(AREA, before)
    guest.set_state(held)
    assert saving(guest, name, rfbm) is None
    area, _ = processor.run(SAVES["xsavec" if name == "xsaves" else name], held, before, rfbm)
    assert guest.get(AREA, len(before)) == area
    # Back, into a processor that holds something else, with what was written or a header that lacks some of it.
    guest.set_state(other)
    assert saving(guest, "xrstor", loads) is None
    _, after = processor.run(RESTORES["xrstor"], other, area, loads)
    assert guest.state == after


# What is loaded -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rfbm", "bitmap", "compacted", "x87", "sse", "mxcsr"),
    [
        # Which is loaded ("used"), initialised ("initial") or left ("mxcsr" state): SDM vol. 1, 13.8 and 13.12.
        ("xrstor", 3, 3, 0, "used", "used", 0x1FA0),
        ("xrstor", 3, 0, 0, "initial", "initial", 0x1FA0),
        ("xrstor", 1, 3, 0, "used", "before", 0x1F82),
        ("xrstor", 2, 1, 0, "before", "initial", 0x1FA0),
        ("xrstor", 3, 3, COMPACTED | 3, "used", "used", 0x1FA0),
        ("xrstor", 3, 1, COMPACTED | 3, "used", "initial", 0x1F80),
        ("xrstor", 3, 1, COMPACTED | 1, "used", "initial", 0x1F80),
        ("xrstor", 1, 0, COMPACTED | 3, "initial", "before", 0x1F82),
        ("xrstors", 3, 3, COMPACTED | 3, "used", "used", 0x1FA0),
        ("xrstors", 3, 0, COMPACTED | 3, "initial", "initial", 0x1F80),
        ("xrstors", 3, 0, COMPACTED, "initial", "initial", 0x1F80),
        ("xrstors", 2, 3, COMPACTED | LBR | 3, "before", "used", 0x1FA0),
    ],
)
def test_loads_and_initialises(
    guest: Guest, name: str, rfbm: int, bitmap: int, compacted: int, x87: str, sse: str, mxcsr: int
) -> None:
    held = {
        "used": STATES["used"],
        "initial": STATES["initial"],
        "before": state(0xF7F, 0x800, 1, 0x1F82, st0=9, xmm3=5),
    }
    guest.set_state(held["before"])
    guest.put(AREA, STATES["used"] + struct.pack("<QQ", bitmap, compacted))
    assert saving(guest, name, rfbm) is None
    expected = held[x87][:24] + struct.pack("<II", mxcsr, 0xFFFF) + held[x87][32:160] + held[sse][160:416]
    assert guest.state[:416] == expected
    if has("xsavec") and name == "xrstor":
        _, after = Native().run(RESTORES[name], held["before"], guest.get(AREA, 576), rfbm)
        assert after[:416] == expected


# Other modes, and what CPUID says -----------------------------------------------------------------------------------


def test_32_bit_code_knows_eight_vectors_and_its_own_addresses() -> None:
    guest = Guest()
    guest.start(32)
    guest.control("CR4", 1 << 18)
    assert guest.run(xsetbv(3)) is None
    guest.set_state(state(xmm7=7, xmm9=9))
    guest.put(AREA, BEFORE)
    assert guest.run(registers(edi=AREA - 64, eax=3, edx=0) + b"\x0f\xae\x67\x40") is None  # xsave [edi + 64]
    held = state(xmm7=7, xmm9=9)
    expected = held[:288] + BEFORE[288:512] + struct.pack("<Q", 2)
    assert guest.get(AREA, 520) == expected
    guest.set_state(state(xmm9=9))
    guest.put(AREA, BEFORE)
    assert guest.run(registers(edi=AREA, eax=3, edx=0) + ALL["xsavec"]) is None  # XMM9 does not count
    assert guest.get(AREA, 528) == BEFORE[:512] + struct.pack("<2Q", 0, COMPACTED | 3)
    guest.put(AREA, state(xmm7=1, xmm9=1) + header(2, 0))
    assert guest.run(registers(edi=AREA, eax=3, edx=0) + ALL["xrstor"]) is None
    assert guest.state == state(xmm7=1, xmm9=9)


def cpuid(guest: Guest, leaf: int, subleaf: int = 0) -> tuple[int, ...]:
    assert guest.run(registers(eax=leaf, ecx=subleaf) + b"\x0f\xa2") is None
    return tuple(guest.register(name) for name in ("RAX", "RBX", "RCX", "RDX"))


@pytest.mark.parametrize(
    ("model", "hidden", "supervisor"),
    [
        ("sapphire-rapids", (), 1),
        ("sapphire-rapids", ("arch-lbr",), 0),
        ("sapphire-rapids", ("pmu",), 0),
        ("skylake-server", (), 0),
    ],
)
def test_cpuid_and_xss(model: str, hidden: tuple[str, ...], supervisor: int) -> None:
    guest = Guest(model, hidden)
    assert cpuid(guest, 1)[2] >> 26 & 3 == 3
    guest.uc.reg_write(x86.UC_X86_REG_CR4, guest.register("CR4") & ~(1 << 18))
    assert cpuid(guest, 1)[2] >> 26 & 3 == 1  # OSXSAVE follows CR4
    guest.control("CR4", 1 << 18)
    assert cpuid(guest, 0xD) == (3, 576, 576, 0)
    assert cpuid(guest, 0xD, 1) == (15, 576, LBR * supervisor, 0)
    assert cpuid(guest, 0xD, 2) == (0, 0, 0, 0)
    assert cpuid(guest, 0xD, 15) == ((808, 0, 1, 0) if supervisor else (0, 0, 0, 0))
    assert guest.run(wrmsr(XSS, LBR)) == (None if supervisor else Fault(GP, 0, 15))
    assert cpuid(guest, 0xD, 1)[1] == 576 + 808 * supervisor
    for bit in (0, 8, 14, 16, 63):
        assert guest.run(wrmsr(XSS, 1 << bit)) == Fault(GP, 0, 15)


def test_without_xsave_there_is_none_of_it() -> None:
    guest = Guest(hidden=("xsave",))
    assert cpuid(guest, 1)[2] >> 26 & 3 == 0
    assert [cpuid(guest, 0xD, sub) for sub in (0, 1, 15)] == [(0, 0, 0, 0)] * 3
    assert guest.run(wrmsr(XSS, 0)) == Fault(GP, 0, 15)
    for name in ALL:
        assert saving(guest, name, 3) == Fault(UD, 0, 15)
    assert guest.run(registers(ecx=0) + b"\x0f\x01\xd0") == Fault(UD, 0, 5)
    assert guest.run(xsetbv(1)) == Fault(UD, 0, 15)


def test_xcr0(guest: Guest) -> None:
    def xgetbv(number: int) -> Fault | int:
        met = guest.run(registers(ecx=number) + b"\x0f\x01\xd0")
        return met or guest.register("RDX") << 32 | guest.register("RAX")

    guest = Guest()
    assert xgetbv(0) == 1  # after reset
    for value in (0, 2, 5, 7, LBR | 3, 1 << 62 | 3, 1 << 63 | 3):
        assert guest.run(xsetbv(value)) == Fault(GP, 0, 15)
    assert guest.run(registers(ecx=1, eax=3, edx=0) + b"\x0f\x01\xd1") == Fault(GP, 0, 15)
    assert guest.run(xsetbv(3)) is None
    assert xgetbv(0) == 3
    guest.set_state(STATES["one vector"])
    assert xgetbv(1) == 2
    guest.set_state(STATES["one control word"])
    assert xgetbv(1) == 1
    assert xgetbv(2) == Fault(GP, 0, 5)
    assert guest.run(xsetbv(1)) is None
    guest.set_state(STATES["used"])
    guest.put(AREA, BEFORE)
    assert saving(guest, "xsaves", 3) is None  # XCR0[1] = 0: SSE is not asked for
    assert guest.get(AREA, 528) == written(STATES["used"], BEFORE, ("control", "stack"), 1, COMPACTED | 1)[:528]
