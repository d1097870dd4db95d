"""`decode` of component-15 images and CPUID dumps: bytes laid down by hand from reference architecture.md 1.1, 4.1."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest

from tests.cli.shell import archlbr

if TYPE_CHECKING:
    from pathlib import Path


def component(depth: int = 8, ctl: int = 0x7F0005) -> bytes:
    """Return 808 bytes: a last exception, two entries, the rest empty."""
    head = struct.pack("<5Q", ctl, depth, 0x401000, 0x402000, 0x8500000000000000)
    first = struct.pack("<3Q", 0x401010, 0x401020, 0x9000000000000007)
    second = struct.pack("<3Q", 0xFFFFFFFF81000000, 0x401120, 0x6800000000000000)
    return (head + first + second).ljust(808, b"\0")


def area(xstate_bv: int, xcomp_bv: int, between: bytes = b"", content: bytes | None = None) -> bytes:
    """Return 512 legacy bytes, the 64-byte header, other components and component 15."""
    header = struct.pack("<QQ", xstate_bv, xcomp_bv).ljust(64, b"\0")
    return b"\xaa" * 512 + header + between + (component() if content is None else content)


IMAGE_TEXT = """\
IA32_LBR_CTL (14CEH) = 0x00000000007f0005
      0  LBREn          1  record
      1  OS             0  record when CPL = 0
      2  USR            1  record when CPL > 0
      3  CALL_STACK     0  call-stack mode
     16  JCC            1  taken conditional branches
     17  NEAR_REL_JMP   1  direct jumps
     18  NEAR_IND_JMP   1  indirect jumps
     19  NEAR_REL_CALL  1  direct calls
     20  NEAR_IND_CALL  1  indirect calls
     21  NEAR_RET       1  returns
     22  OTHER_BRANCH   1  far transfers, system calls, interrupts, exceptions, aborts
IA32_LBR_DEPTH (14CFH) = 8
last exception: 0x0000000000401000 -> 0x0000000000402000  RET           - cycles  mispredicted
2 of 8 entries, newest first
   0  0x0000000000401010 -> 0x0000000000401020  COND          7 cycles  mispredicted
   1  0xffffffff81000000 -> 0x0000000000401120  OTHER         - cycles  in transaction, abort
"""


def test_the_bare_component_in_words(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(component())
    assert archlbr("decode", "--xsave", str(image)) == (0, "component 15, alone\n" + IMAGE_TEXT, "")


@pytest.mark.parametrize(
    ("xcomp_bv", "between", "offset"),
    [
        (0x8000000000008000, 0, 576),
        (0x8000000000008007, 256, 832),
        # AVX 256, opmask 64, ZMM 512 + 1024, PKRU 8, CET 16 + 24.
        (0x8000000000009AE7, 256 + 64 + 512 + 1024 + 8 + 16 + 24, 2480),
        # Tile data comes after component 15.
        (0x8000000000068000, 0, 576),
    ],
)
def test_the_component_is_found_in_a_compacted_area(tmp_path: Path, xcomp_bv: int, between: int, offset: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(area(0x8000, xcomp_bv, b"\xbb" * between) + b"\xcc" * 100)
    expected = f"component 15, at byte {offset}\nXSTATE_BV = 0x0000000000008000  XCOMP_BV = {xcomp_bv:#018x}\n"
    assert archlbr("decode", "--xsave", str(image)).out == expected + IMAGE_TEXT


@pytest.mark.parametrize(
    ("component_number", "size"),
    list(enumerate((256, 64, 64, 64, 512, 1024, 128, 8, 8, 16, 24, 8, 48), start=2)),
)
def test_each_component_in_front_takes_its_usual_bytes(tmp_path: Path, component_number: int, size: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(area(0x8000, 0x8000000000008000 | 1 << component_number, b"\xbb" * size))
    out = archlbr("decode", "--xsave", str(image)).out
    assert out.startswith(f"component 15, at byte {576 + size}\n")
    assert out.endswith(IMAGE_TEXT)


def test_a_from_of_zero_ends_the_entries_whatever_its_to(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(component()[:64] + struct.pack("<3Q", 0, 0x401120, 0) + component()[88:])
    out = archlbr("decode", "--xsave", str(image)).out
    assert out.splitlines()[-2:] == [
        "1 of 8 entries, newest first",
        "   0  0x0000000000401010 -> 0x0000000000401020  COND          7 cycles  mispredicted",
    ]


def test_leaf_0dh_says_where_the_component_lies(tmp_path: Path) -> None:
    image, dump = tmp_path / "image", tmp_path / "dump"
    image.write_bytes(area(0x8000, 0x8000000000008004, b"\xbb" * 320))
    dump.write_text("CPU:\n   0x0000000d 0x02: eax=0x00000140 ebx=0x00000240 ecx=0x00000000 edx=0x00000000\n")
    ran = archlbr("decode", "--xsave", str(image), "--cpuid", str(dump))
    assert ran.out.partition("\n")[0] == "component 15, at byte 896"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (
            area(0, 0x8000000000008000),
            "XSTATE_BV[15] is 0: XRSTORS ignores these bytes and clears all but DEPTH (architecture.md 4.2)",
        ),
        (area(0x8004, 0x8000000000008000), "XRSTORS faults: XSTATE_BV has bits that XCOMP_BV lacks: 0x4"),
        (
            component(ctl=0x7F0015),
            "XRSTORS faults: reserved bits of IA32_LBR_CTL are set: 0x10 (architecture.md 4.2)",
        ),
        (
            component(depth=9),
            "DEPTH = 9 is no depth this image can hold: XRSTORS clears the entries or faults (UNCONFIRMED)",
        ),
        (
            component()[:136] + struct.pack("<3Q", 0x401000, 0, 0) + component()[160:],
            "entry 2 has FROM = 0, yet later ones are not empty: readers stop at 2",
        ),
        (
            component()[:232] + struct.pack("<3Q", 0x401000, 0, 0) + component()[256:],
            "the bytes of entries 8 to 31 are not zero: they are no records",
        ),
    ],
)
def test_what_is_odd_about_an_image_is_said(tmp_path: Path, content: bytes, note: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    out = archlbr("decode", "--xsave", str(image)).out
    assert [line for line in out.splitlines() if line.startswith("note: ")] == [f"note: {note}"]


def test_the_document_of_an_image(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(area(0x8000, 0x8000000000008000))
    found = json.loads(archlbr("decode", "--xsave", str(image), "--format", "json").out)
    assert found.pop("ctl")["value"] == "0x7f0005"
    assert found == {
        "version": 1,
        "kind": "xsave",
        "offset": 576,
        "xstate_bv": "0x8000",
        "xcomp_bv": "0x8000000000008000",
        "depth": 8,
        "ler": {
            "from": "0x401000",
            "to": "0x402000",
            "info": "0x8500000000000000",
            "kind": "RET",
            "cycles": None,
            "flags": ["mispredicted"],
        },
        "entries": [
            {
                "index": 0,
                "from": "0x401010",
                "to": "0x401020",
                "info": "0x9000000000000007",
                "kind": "COND",
                "cycles": 7,
                "flags": ["mispredicted"],
            },
            {
                "index": 1,
                "from": "0xffffffff81000000",
                "to": "0x401120",
                "info": "0x6800000000000000",
                "kind": "OTHER",
                "cycles": None,
                "flags": ["in transaction", "abort"],
            },
        ],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"",
            "0 bytes, too short: give the 808 bytes of component 15, or a whole compacted XSAVE area of at least 1384",
        ),
        (
            component()[:500],
            "500 bytes, too short: give the 808 bytes of component 15, "
            "or a whole compacted XSAVE area of at least 1384",
        ),
        (
            area(0x8000, 0),
            "XCOMP_BV[63] is 0, so this is the standard format, which never holds component 15; "
            "give an area that XSAVES wrote",
        ),
        (
            area(0x4, 0x8000000000000004),
            "XCOMP_BV = 0x8000000000000004 has no component 15; set IA32_XSS[15] and save with RFBM[15]",
        ),
        (
            area(0x8000, 0x8000000000008000)[:-1],
            "1383 bytes, but component 15 ends at 1384; give the whole area",
        ),
    ],
)
def test_a_damaged_image_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    assert archlbr("decode", "--xsave", str(image)) == (2, "", f"archlbr: {image}: {said}\n")


# An Arrow Lake's performance and efficiency core: the leaves of architecture.md 1.1, in the form of `cpuid -r`.
HYBRID = """\
CPU 0:
   0x00000007 0x00: eax=0x00000002 ebx=0x00000000 ecx=0x00000000 edx=0xfc18c430
   0x0000000a 0x00: eax=0x07300605 ebx=0x00000000 ecx=0x00000000 edx=0x00008603
   0x0000000d 0x01: eax=0x0000000f ebx=0x00000000 ecx=0x0000d900 edx=0x00000000
   0x0000000d 0x0f: eax=0x00000328 ebx=0x00000000 ecx=0x00000001 edx=0x00000000
   0x0000001c 0x00: eax=0x4000000b ebx=0x00000007 ecx=0x000f0007 edx=0x00000000
CPU 1:
   0x00000007 0x00: eax=0x00000002 ebx=0x00000000 ecx=0x00000000 edx=0xfc18c430
   0x0000000a 0x00: eax=0x07300605 ebx=0x00000000 ecx=0x00000000 edx=0x00008603
   0x0000000d 0x01: eax=0x0000000f ebx=0x00000000 ecx=0x0000d900 edx=0x00000000
   0x0000000d 0x0f: eax=0x00000328 ebx=0x00000000 ecx=0x00000001 edx=0x00000000
   0x0000001c 0x00: eax=0x4000000b ebx=0x00000007 ecx=0x000f0007 edx=0x00000000
CPU 2:
   0x00000007 0x00: eax=0x00000002 ebx=0x00000000 ecx=0x00000000 edx=0xfc18c430
   0x0000001c 0x00: eax=0xc000000b ebx=0x00000007 ecx=0x000f0007 edx=0x00000000
"""
FIRST_CORES = """\
CPU 0, CPU 1:
  leaf 07H
    Architectural LBR                     yes
    transactions (RTM)                    no
  leaf 0AH
    PMU version                           5
    general-purpose counters              6
    their width in bits                   48
    fixed counters                        3
    width of the fixed in bits            48
  leaf 0DH.01H
    XSAVES and XRSTORS                    yes
    IA32_XSS may hold component 15        yes
  leaf 0DH.0FH
    size in bytes                         808
    offset in the standard format         0
    supervisor component                  yes
    aligned to 64 bytes                   no
  leaf 1CH
    legal depths                          8, 16, 32
    a deep C-state may clear the entries  yes
    addresses are linear                  no
    CPL filtering                         yes
    branch filtering                      yes
    call-stack mode                       yes
    mispredict bit                        yes
    cycle counts                          yes
    branch type                           yes
    counters with event logging           0, 1, 2, 3
CPU 2:
"""


def test_a_dump_is_put_in_words_a_paragraph_for_each_sort_of_core() -> None:
    ran = archlbr("decode", "--cpuid", "-", stdin=HYBRID)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(FIRST_CORES)
    second = ran.out.removeprefix(FIRST_CORES).splitlines()
    assert second[3:6] == [
        "  leaf 0AH: not in the dump",
        "  leaf 0DH.01H: not in the dump",
        "  leaf 0DH.0FH: not in the dump",
    ]
    assert "    addresses are linear                  yes" in second


def row(leaf: int, subleaf: int, eax: int = 0, ebx: int = 0, ecx: int = 0, edx: int = 0) -> str:
    """Return a line of `cpuid -r`."""
    return f"   0x{leaf:08x} 0x{subleaf:02x}: eax=0x{eax:08x} ebx=0x{ebx:08x} ecx=0x{ecx:08x} edx=0x{edx:08x}\n"


@pytest.mark.parametrize(
    ("dump", "found"),
    [
        (row(7, 0, edx=1 << 19), ["07H:EDX[19] is 1, yet 1CH:EAX[7:0] names no depth"]),
        (row(0x1C, 0, eax=0x8), ["07H:EDX[19] is 0, yet 1CH:EAX[7:0] names depths"]),
        (
            row(7, 0, edx=1 << 19) + row(0x1C, 0, eax=0x8) + row(0xD, 1, eax=8, ecx=0x8000),
            ["component 15 has 0 bytes where 808 are needed"],
        ),
        (
            row(0xD, 1, ecx=0x8000) + row(0xD, 15, eax=0x328, ecx=1),
            [
                "07H:EDX[19] is 0, yet 0DH.01H:ECX[15] offers component 15",
                "0DH.01H:ECX[15] offers component 15, yet 0DH.01H:EAX[3] has no XSAVES",
            ],
        ),
        (
            row(7, 0, edx=1 << 19) + row(0x1C, 0, eax=0x108, ebx=8, edx=1),
            ["reserved bits of 1CH are set: 0x100 0x8 0x0 0x1"],
        ),
        (row(7, 0, edx=1 << 19) + row(0x1C, 0, eax=0x8), []),
    ],
)
def test_leaves_that_disagree_are_named(dump: str, found: list[str]) -> None:
    document = json.loads(archlbr("decode", "--cpuid", "-", "--format", "json", stdin="CPU:\n" + dump).out)
    assert [processor["contradictions"] for processor in document["processors"]] == [found]


def test_the_document_of_a_dump() -> None:
    document = json.loads(archlbr("decode", "--cpuid", "-", "--format", "json", stdin=HYBRID).out)
    assert [processor["names"] for processor in document["processors"]] == [["CPU 0", "CPU 1"], ["CPU 2"]]
    assert document["processors"][1]["leaves"] == {
        "07H": {"arch_lbr": True, "rtm": False},
        "0AH": None,
        "0DH.01H": None,
        "0DH.0FH": None,
        "1CH": {
            "depths": [8, 16, 32],
            "deep_c_reset": True,
            "lip": True,
            "cpl_filter": True,
            "branch_filter": True,
            "call_stack": True,
            "mispredict": True,
            "timed": True,
            "branch_type": True,
            "event_counters": [0, 1, 2, 3],
        },
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "-: no CPUID leaves; give what `cpuid -1 -r` prints"),
        ("CPU 0:\n", "-: no CPUID leaves; give what `cpuid -1 -r` prints"),
        (
            "CPU 0:\n   0x00000007 0x00: eax=0x00000002\n",
            "-, line 2: not a line of `cpuid -r`: '0x00000007 0x00: eax=0x00000002'; make one with `cpuid -1 -r`",
        ),
    ],
)
def test_a_damaged_dump_is_one_line(text: str, said: str) -> None:
    assert archlbr("decode", "--cpuid", "-", stdin=text) == (2, "", f"archlbr: {said}\n")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    name = str(tmp_path / "none")
    said = f"archlbr: {name}: No such file or directory; name a file that can be read\n"
    assert archlbr("decode", "--xsave", name) == (2, "", said)
    assert archlbr("decode", "--cpuid", name) == (2, "", said)
