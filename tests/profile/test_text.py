"""Text that other tools read, letter by letter."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from elftools.elf.elffile import ELFFile

from archlbr.errors import InputError
from archlbr.profile import text
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping
from tests.foreign.tools import need
from tests.profile.examples import ATTR, LIBRARY, record, stacks, times

if TYPE_CHECKING:
    from pathlib import Path


def test_script_lines(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        record(profile)
    with Reader(tmp_path / "perf.data") as found:
        assert list(text.script(found)) == [
            "PERF_RECORD_MMAP2 7/7: [0x401000(0x2000) @ 0x1000 08:01 77 1]: r-xp /opt/prog\n",
            "PERF_RECORD_MMAP2 7/7: [0x7f0000000000(0x10000) @ 0 08:01 78 0]: r-xp /opt/lib.so\n",
            "           401100 0x401010/0x401100/P/-/-/9/COND  0x401105/0x401008/M/-/-/0/RET \n",
            "           401101\n",
            "     7f0000000010 0x401200/0x7f0000000010/P/-/-/0/IND_CALL \n",
        ]
        assert list(text.script(found, pid=True))[2:4] == [
            "    7            401100 0x401010/0x401100/P/-/-/9/COND  0x401105/0x401008/M/-/-/0/RET \n",
            "    7            401101\n",
        ]


def test_transactions_and_unknown_types_have_their_letters(tmp_path: Path) -> None:
    read, counts = stacks([(1, 2, 1 << 62), (3, 4, 1 << 61), (5, 6, 8 << 56)])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(7, 7, times(1), times(2), 1, read, counts)
    with Reader(tmp_path / "perf.data") as found:
        assert list(text.script(found)) == [
            "                2 0x1/0x2/P/X/-/0/COND  0x3/0x4/P/-/A/0/COND  0x5/0x6/P/-/-/0/ \n"
        ]


SOURCE = """
    .globl _start
    .type one, @function
one:  nop
      nop
      jmp 1f
1:    ret
    .size one, . - one
    .type _start, @function
_start: call one
      nop
      mov $60, %eax
      xor %edi, %edi
      syscall
    .size _start, . - _start
"""


@pytest.fixture
def image(tmp_path: Path) -> tuple[Mapping, int]:
    """A small position-independent program mapped high up, and the link-time address of its code."""
    (tmp_path / "x.s").write_text(SOURCE)
    program = tmp_path / "x"
    command = [need("gcc"), "-nostdlib", "-static-pie", "-o", program, tmp_path / "x.s"]
    subprocess.run(command, check=True, capture_output=True)
    with program.open("rb") as file:
        part = next(row for row in ELFFile(file).iter_segments("PT_LOAD") if row["p_flags"] & 1)
        low, offset, size = part["p_vaddr"], part["p_offset"], part["p_filesz"]
    page = offset & ~0xFFF
    return Mapping(0x555555554000 + page, (offset - page + size + 0xFFF) & ~0xFFF, page, str(program)), low


def test_preaggregated_lines_have_the_file_s_own_addresses(tmp_path: Path, image: tuple[Mapping, int]) -> None:
    mapping, code = image
    base = mapping.start + (code & 0xFFF)
    one, back, leave = base, base + 4, base + 5
    # call one; jmp over nothing; ret; a jump out of the file; newest first, twice, with one misprediction.
    stack = [
        (base + 0x11, LIBRARY.start + 16, 0),
        (back, leave + 5, 1 << 63 | 5 << 56),
        (one + 2, back, 2 << 56),
        (leave, one, 4 << 56),
    ]
    read, counts = stacks(stack, stack[1:])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.mmap2(7, 7, 0, mapping)
        profile.mmap2(7, 7, 0, LIBRARY)
        profile.samples(7, 7, times(1, 2), times(1, 1), 1, read, counts)
    with Reader(tmp_path / "perf.data") as found:
        rows = list(text.preaggregated(found, mapping.path))
    # An edge within a function opens an `F` range, a call or a return an `f` range.
    assert rows == [
        f"B {code + 2:x} {code + 4:x} 2 0\n",
        f"B {code + 4:x} {code + 10:x} 2 2\n",
        f"B {code + 5:x} {code:x} 2 0\n",
        f"B {code + 17:x} 0 1 0\n",
        f"F {code + 4:x} {code + 4:x} 2\n",
        f"f {code:x} {code + 2:x} 2\n",
        f"f {code + 10:x} {code + 17:x} 1\n",
    ]


def test_a_file_that_is_not_mapped_is_named(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        record(profile)
    with Reader(tmp_path / "perf.data") as found, pytest.raises(InputError) as caught:
        list(text.preaggregated(found, "/opt/other"))
    assert str(caught.value) == (
        f"/opt/other is not mapped in {tmp_path / 'perf.data'}: choose one of /opt/lib.so, /opt/prog"
    )


def test_a_file_that_no_sample_touches_is_named(tmp_path: Path, image: tuple[Mapping, int]) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.mmap2(7, 7, 0, image[0])
        read, counts = stacks([(1, 2, 0)])
        profile.samples(7, 7, times(1), times(2), 1, read, counts)
    with (
        Reader(tmp_path / "perf.data") as found,
        pytest.raises(InputError, match=r"^no sample of .* touches .*x: record it"),
    ):
        list(text.preaggregated(found, image[0].path))


def test_a_mapped_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        record(profile)
    with (
        Reader(tmp_path / "perf.data") as found,
        pytest.raises(InputError, match=r"^cannot read /opt/prog: No such file"),
    ):
        list(text.preaggregated(found, "/opt/prog"))
