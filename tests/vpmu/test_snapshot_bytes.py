"""The bytes of a vCPU's snapshot: their layout, and that a damaged or impossible one is refused whole."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlbr.errors import InputError
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.image import WORDS, Image, pack, unpack
from archlbr.vpmu.snapshot import mismatch
from tests.vpmu.parts import (
    ALL,
    LBR_XSS,
    leaves,
    old_part,
)
from tests.vpmu.snapshots import into, saved, source, target


def test_every_flipped_bit_is_refused():
    data = saved(source())
    w = target()
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(InputError) as refused:
                into(w, bytes(damaged))
            assert "\n" not in str(refused.value)


def test_every_truncation_and_addition_is_refused():
    data = saved(source())
    w = target()
    for size in range(len(data)):
        with pytest.raises(InputError):
            into(w, data[:size])
    for more in (b"\0", data):
        with pytest.raises(InputError, match="cut or added to"):
            into(w, data + more)


def test_the_layout_by_hand():
    data = saved(source())
    assert data[:8] == b"ALBRVCPU"
    assert struct.unpack_from("<II", data, 8) == (1, len(data))
    words = struct.unpack_from("<34Q", data, 16)
    assert words[:11] == (0x3F, 0x0B, 7, 7, LBR_XSS, 5, ALL, 16, 0x71, 0x72, 7 << 56)
    assert words[11:18] == (0, 0, 1, LBR_XSS, 1, 1 << 11, 0x3F)
    assert words[18:23] == (0, 0, 0xB, 1 << 32 | 1, 1 << 58 | 1)
    assert words[23:31] == (0,) * 8
    assert words[31:] == (8, 4, 16)
    lists = 16 + 34 * 8
    assert struct.unpack_from("<Q", data, lists)[0] == 0x1234
    records = lists + (8 + 8 + 4) * 8
    assert struct.unpack_from("<6Q", data, records)[:2] == (0x10, 0x18)
    assert len(data) == records + 16 * 24 + 32


def test_another_version_is_refused_by_its_number():
    data = bytearray(saved(source()))
    struct.pack_into("<I", data, 8, 2)
    with pytest.raises(InputError, match=r"^vCPU snapshot of version 2: this archlbr reads version 1; take a new one$"):
        unpack(bytes(data))


def test_values_a_guest_could_not_have_are_refused():
    w = target()
    before = w.state
    for field, value in (("msr_lbr_ctl", 1 << 5), ("msr_lbr_depth", 24), ("xss", 1 << 8), ("ler_from", 1 << 50)):
        image: Image = unpack(saved(source()))._replace(**{field: value})
        with pytest.raises(InputError):
            into(w, pack(image))
        assert w.state is before


@pytest.mark.parametrize("depth", [0, 16])
def test_legacy_lbrs_have_the_depth_of_their_part(depth):
    v = old_part(ARCHLBR)
    with pytest.raises(InputError, match=f"msr_lbr_depth holds {depth:#x}, which no vCPU has"):
        into(v, pack(unpack(saved(v))._replace(msr_lbr_depth=depth)))


def test_without_lbrs_there_is_no_enable_bit():
    v = target(leaves(leaf1c=None))
    with pytest.raises(InputError, match="msr_debugctl holds 0x1, which no vCPU has"):
        into(v, pack(unpack(saved(v))._replace(msr_debugctl=1)))


KINDS = {
    "architectural": (source, target),
    "off": (lambda: target(leaves(leaf1c=None)), lambda: target(leaves(leaf1c=None))),
    "legacy": (lambda: old_part(ARCHLBR), lambda: old_part(ARCHLBR)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(WORDS), st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda bit: 1 << bit)))
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
def test_one_word_of_any_value_is_refused_or_restored_as_it_is(kind, field, value):
    make, fresh = KINDS[kind]
    data = pack(unpack(saved(make()))._replace(**{field: value}))
    w = fresh()
    try:
        into(w, data)
    except InputError:
        return
    image = unpack(saved(w))
    # What the guest was told is the target's own from now on.
    told = ("cpuid_1c_eax", "cpuid_1c_ebx", "cpuid_1c_ecx", "xss_legal")
    mine = unpack(saved(fresh()))
    assert image == unpack(data)._replace(**{name: getattr(mine, name) for name in told}, asked=image.asked)


def test_bytes_and_image_are_one():
    data = saved(source())
    assert pack(unpack(data)) == data
    assert mismatch(ARCHLBR, target().platform, target().state, unpack(data)) == ""
