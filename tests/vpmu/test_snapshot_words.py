"""What a snapshot holds and what a restore says, exactly: the words of L2, the XRSTORS image, each refusal."""

from __future__ import annotations

import re
import struct

import pytest

from archlbr.arch.cpuid import Leaf0A, Leaf0D1, Leaf1C
from archlbr.errors import InputError
from archlbr.lbr.actions import Smi
from archlbr.lbr.state import Entry, legacy
from archlbr.vpmu.actions import Deny, NestedEntry, Release
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.image import Image, pack, unpack
from archlbr.vpmu.snapshot import Part, Piece, mismatch, pieces, restore
from tests.vpmu.parts import (
    ALL,
    AVX,
    CTL,
    DEBUGCTL,
    ENTRY,
    EXIT,
    FREEZE,
    FROM,
    HIGH,
    INFO,
    LBR_XSS,
    LER_FROM,
    LER_INFO,
    OLD_FROM,
    OLD_INFO,
    OLD_TO,
    SELECT,
    TO,
    TOS,
    Vcpu,
    leaves,
    old_part,
)
from tests.vpmu.snapshots import WIDE, into, saved, source, target


def said(w: Vcpu, image: Image) -> str:
    """Return what a target says to an image, in one line."""
    before = w.state
    with pytest.raises(InputError) as refused:
        into(w, pack(image))
    assert w.state is before
    return str(refused.value).removeprefix("cannot restore this vCPU: ")


def test_the_words_of_l2() -> None:
    v = source(nested=1)
    v.enter()
    v.do(NestedEntry(ENTRY, EXIT, 6, FREEZE | 1, 1))
    image = unpack(saved(v))
    assert image[23:31] == (1, 1, ENTRY, EXIT, 1, ALL, FREEZE, FREEZE)
    assert (image.msr_lbr_ctl, image.msr_debugctl) == (6, FREEZE)
    w = into(target(nested=1), saved(v))
    assert (w.state.nested, saved(w)) == (v.state.nested, saved(v))


def test_a_request_that_waits_goes_along() -> None:
    v = target()
    v.do(Release())
    v.wr(CTL, ALL)
    v.wr(CTL, ALL & ~1)
    assert (unpack(saved(v)).asked, unpack(saved(target())).asked) == (1, 0)
    w = into(target(), saved(v))
    assert (w.state.event, w.state.owned, w.rd(CTL)) == (1, 1, ALL & ~1)
    assert into(target(), saved(target())).state.event == 0


def test_smm_and_what_smram_holds() -> None:
    v = source()
    v.do(Smi())
    image = unpack(saved(v))
    assert (image.smm, image.smram_lbr_ctl, image.msr_lbr_ctl) == (1, ALL, ALL & ~1)
    w = into(target(), saved(v))
    assert (w.state.guest.smm, w.state.smram) == (1, ALL)


def test_the_image_for_xrstors_byte_by_byte() -> None:
    v = source()
    # MISPRED is bit 63 of INFO, and a kernel's address has it, too.
    for msr, value in ((INFO + 1, 1 << 63 | 5), (FROM + 15, HIGH | 8), (TO + 15, HIGH), (LER_FROM, HIGH | 4)):
        assert v.wr(msr, value) == "ok"
    whole = pieces(unpack(saved(v)), xrstors=True)
    # CTL 0, DEPTH, LER FROM, TO, INFO, then the entries (SDM vol. 1, 13.5.6).
    written = [v.rd(INFO), 1 << 63 | 5, 0x123]
    component = bytearray(808)
    struct.pack_into("<5Q", component, 0, 0, 16, HIGH | 4, 0x72, 7 << 56)
    for x, (start, info) in enumerate(zip((0x10, 0x20, 0x30), written, strict=True)):
        struct.pack_into("<3Q", component, 40 + 24 * x, start, start + 8, info)
    struct.pack_into("<2Q", component, 40 + 24 * 15, HIGH | 8, HIGH)
    assert whole == (
        Piece(Part.XSS, LBR_XSS),
        Piece(Part.DEPTH, 16),
        Piece(Part.RECORDS, bytes(component)),
        Piece(Part.CTL, ALL),
    )
    by_msr = pieces(unpack(saved(v)))
    assert isinstance(by_msr[2].content, tuple)
    assert (by_msr[2].part, by_msr[2].content[0], len(by_msr[2].content)) == (
        Part.RECORDS, Entry(HIGH | 4, 0x72, 7 << 56), 17,
    )  # fmt: skip
    assert (by_msr[0], by_msr[1], by_msr[3]) == (whole[0], whole[1], whole[3])
    for xrstors in (False, True):
        assert saved(into(target(), saved(v), xrstors=xrstors)) == saved(v)


def test_legacy_and_absent_lbrs_have_fewer_pieces() -> None:
    v, off = old_part(ARCHLBR), target(leaves(leaf1c=None))
    image = unpack(saved(v))
    assert pieces(image) == (Piece(Part.XSS, 0), Piece(Part.RECORDS, (Entry(0, 0, 0),) * 33))
    assert pieces(unpack(saved(off))) == (Piece(Part.XSS, 0),)
    assert (unpack(saved(off)).flavour, unpack(saved(off)).lbr_records, unpack(saved(off)).msr_lbr_depth) == (64, (), 0)


def test_legacy_lbrs_with_info_and_without() -> None:
    for form, depth, record in ((3, 16, (0x10, 0x18)), (5, 32, (0x10, 0x18, 0x1234)), (7, 32, (0x10, 0x18, 0x1234))):
        v, w = (old_part(ARCHLBR, facility=legacy(form, depth, 4), capabilities=form) for _ in range(2))
        v.wr(DEBUGCTL, 1)
        v.wr(SELECT, 2)
        v.wr(TOS, 9)
        # Record 3 of the stack; its INFO where the format has MSR_LBR_INFO.
        registers = [block + 3 for block in (OLD_FROM, OLD_TO, OLD_INFO)][: len(record)]
        assert {v.wr(register, value) for register, value in zip(registers, record, strict=True)} == {"ok"}
        image = unpack(saved(v))
        assert (image.flavour, image.lbr_select, image.lbr_tos, len(image.lbr_records)) == (form, 2, 9, depth)
        assert image.lbr_records[3] == Entry(*record, *(0,) * (3 - len(record)))
        w.state = restore(ARCHLBR, w.platform, w.state, saved(v))
        assert (*map(w.rd, registers), w.rd(SELECT), w.rd(TOS)) == (*record, 2, 9)
        assert saved(w) == saved(v)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"msr_lbr_ctl": 1 << 5}, "the target's IA32_LBR_CTL (14CEH) refuses 0x20"),
        ({"ler_from": 1 << 50}, "the target's IA32_LER_FROM_IP (1DDH) refuses 0x4000000000000"),
        ({"xss": 1 << 8}, "the target's IA32_XSS (DA0H) refuses 0x100"),
        ({"msr_gp_evtsel": (0, 0, 1 << 40, 0, 0, 0, 0, 0)},
         "the target's IA32_PERFEVTSELx (188H) refuses 0x10000000000"),
        ({"perf_capabilities": 1}, "the target's IA32_PERF_CAPABILITIES (345H) refuses 0x1"),
        ({"msr_lbr_depth": 24}, "it holds 16 records for a DEPTH of 24"),
        ({"flavour": 5}, "the source's LBRs are of the legacy format 5, the target's architectural"),
        ({"flavour": 64}, "the source's LBRs are off, the target's architectural"),
        ({"cpuid_1c_eax": 0x8000_000B}, "the target's CPUID.1CH lacks EAX 0x80000000"),
        ({"cpuid_1c_eax": 0x4000_000B, "cpuid_1c_ebx": 15}, "the target's CPUID.1CH lacks EAX 0x40000000, EBX 0x8"),
        ({"cpuid_1c_ecx": 0xF0007}, "the target's CPUID.1CH lacks ECX 0xf0000"),
        ({"cpuid_1c_eax": 3}, "the source's depths are (8, 16), the target's (8, 16, 32)"),
        ({"xss_legal": 0x8100}, "the target's IA32_XSS lacks components 0x100"),
        ({"xcr0": 0x21}, "the target's XCR0 lacks components 0x20"),
        ({"xcr0": 2}, "xcr0 holds 0x2, which no vCPU has"),
        ({"pmu_version": 4}, "the source's PMU is of version 4, the target's of 5"),
        ({"msr_gp_counters": (0,) * 4, "msr_gp_evtsel": (0,) * 4}, "the source has 4 + 4 counters, the target 8 + 4"),
        ({"msr_fixed_counters": (0,) * 3}, "the source has 8 + 3 counters, the target 8 + 4"),
        ({"msr_fixed_counters": (0, 1 << 50, 0, 0)}, "a fixed counter holds 51 bits, the target's have 48"),
        ({"nested_offered": 1}, "one of the two hosts offers L1 the LBR controls and the other does not"),
        ({"asked": 2}, "asked holds 0x2, which no vCPU has"),
        ({"smm": 2}, "smm holds 0x2, which no vCPU has"),
        ({"nested_active": 3}, "nested_active holds 0x3, which no vCPU has"),
        ({"nested_active": 1, "nested_passthrough": 2}, "nested_passthrough holds 0x2, which no vCPU has"),
        ({"nested_passthrough": 1}, "nested_passthrough holds 0x1, which no vCPU has"),
        ({"nested_debugctl12": 8}, "nested_debugctl12 holds 0x8, which no vCPU has"),
        ({"nested_active": 1, "nested_entry_controls": EXIT},
         "nested_entry_controls holds 0x4000000, which no vCPU has"),
        ({"nested_active": 1, "nested_exit_controls": ENTRY}, "nested_exit_controls holds 0x200000, which no vCPU has"),
        ({"nested_active": 1, "nested_l1_ctl": 1 << 4}, "nested_l1_ctl holds 0x10, which no vCPU has"),
        ({"nested_active": 1, "nested_l1_debugctl": 1 << 12}, "nested_l1_debugctl holds 0x1000, which no vCPU has"),
        ({"msr_debugctl": 1}, "msr_debugctl holds 0x1, which no vCPU has"),
        ({"lbr_select": 1}, "lbr_select holds 0x1, which no vCPU has"),
        ({"lbr_tos": 4}, "lbr_tos holds 0x4, which no vCPU has"),
    ],
)  # fmt: skip
def test_what_an_architectural_target_says(changed: dict[str, object], words: str) -> None:
    assert said(target(), unpack(saved(source()))._replace(**changed)) == words


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"msr_lbr_ctl": 1}, "msr_lbr_ctl holds 0x1, which no vCPU has"),
        ({"ler_info": 1 << 56}, "ler_info holds 0x100000000000000, which no vCPU has"),
        ({"msr_lbr_depth": 16}, "msr_lbr_depth holds 0x10, which no vCPU has"),
        ({"lbr_records": (Entry(0, 0, 0),) * 16}, "it holds 16 records, the target 32"),
        ({"lbr_tos": 32}, "the target's MSR_LASTBRANCH_TOS (1C9H) refuses 0x20"),
        ({"flavour": 64}, "the source's LBRs are off, the target's of the legacy format 5"),
        ({"nested_offered": 1}, "one of the two hosts offers L1 the LBR controls and the other does not"),
    ],
)
def test_what_a_legacy_target_says(changed: dict[str, object], words: str) -> None:
    assert said(old_part(ARCHLBR), unpack(saved(old_part(ARCHLBR)))._replace(**changed)) == words


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ler_from": 1}, "ler_from holds 0x1, which no vCPU has"),
        ({"ler_to": 1}, "ler_to holds 0x1, which no vCPU has"),
        ({"msr_lbr_depth": 32}, "msr_lbr_depth holds 0x20, which no vCPU has"),
        ({"lbr_select": 1}, "lbr_select holds 0x1, which no vCPU has"),
        ({"lbr_records": (Entry(0, 0, 0),)}, "it holds 1 records, the target 32"),
    ],
)
def test_what_a_target_without_lbrs_says(changed: dict[str, object], words: str) -> None:
    off = leaves(leaf1c=None)
    assert said(target(off), unpack(saved(target(off)))._replace(**changed)) == words


def test_every_legal_bit_is_taken() -> None:
    v = unpack(saved(source()))
    for changed in ({"msr_debugctl": FREEZE}, {"xcr0": 7}, {"cpuid_1c_eax": 0x0A}, {"cpuid_1c_ebx": 0}, {"asked": 0}):
        assert mismatch(ARCHLBR, target().platform, target().state, v._replace(**changed)) == ""
    inner = {"nested_active": 1, "nested_entry_controls": ENTRY, "nested_exit_controls": EXIT, "nested_passthrough": 1,
             "nested_l1_ctl": ALL | 8, "nested_l1_debugctl": FREEZE | 1, "nested_debugctl12": 99}  # fmt: skip
    assert mismatch(ARCHLBR, target().platform, target().state, v._replace(**inner)) == ""


def test_what_xrstors_refuses_word_for_word() -> None:
    v = source()
    v.wr(0xDA0, 0)
    whole = "cannot restore by XRSTORS: IA32_XSS[15] is 0 in the snapshot; write the records one by one"
    with pytest.raises(InputError, match=f"^{re.escape(whole)}$"):
        into(target(), saved(v), xrstors=True)
    bad = unpack(saved(source()))._replace(ler_from=1 << 50)
    with pytest.raises(InputError, match=r"^cannot restore this vCPU: XRSTORS refuses the records$"):
        into(target(), pack(bad), xrstors=True)


def test_xrstors_fills_the_guest_s_copy_where_another_owns_the_lbrs() -> None:
    for away in (Release(), Deny()):
        w = target()
        w.do(away)
        into(w, saved(source()), xrstors=True)
        assert (w.state.owned, w.state.guest.stack[0][:2], w.state.lbr.stack[0]) == (0, (0x10, 0x18), Entry(0, 0, 0))
        assert w.rd(LER_INFO) == 7 << 56


def test_a_guest_without_xsaves_has_no_xss_to_write() -> None:
    plain = leaves((8, 16, 32), leaf0d1=Leaf0D1(7, 0, 0, 0), components=(AVX,))
    v, w = target(plain), target(plain)
    v.wr(CTL, ALL)
    assert into(w, saved(v)).rd(CTL) == ALL
    assert w.wr(0xDA0, 0) == "#GP"


def test_counters_of_another_width_and_leaf_are_the_target_s() -> None:
    wide = leaves((8, 16, 32), leaf0a=Leaf0A.of(5, fixed_width=40))
    v = unpack(saved(target(WIDE)))._replace(msr_fixed_counters=(0, 0, (1 << 40) - 1, 0))
    assert into(target(wide), pack(v)).rd(0x30B) == (1 << 40) - 1
    richer = leaves((8, 16, 32), leaf1c=Leaf1C(0x0B, 7, 7, 0))
    assert mismatch(ARCHLBR, target(richer).platform, target(richer).state, v) == ""
