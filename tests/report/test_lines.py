"""Source lines against addr2line, which shares no code with the reader: DWARF 4 and 5, of gcc and of clang."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from archlbr.profile.images import segments
from archlbr.report.lines import SourceLines
from archlbr.report.names import source_text

if TYPE_CHECKING:
    from pathlib import Path

if shutil.which("addr2line") is None:
    pytest.skip("binutils is not installed: no addr2line to ask", allow_module_level=True)

ONE = """
#include "add.h"
int sum(int n) {
    int total = 0;
    for (int i = 0; i < n; i++)
        total = add(total, i);
    return total;
}
__attribute__((section(".text.far"), noinline)) int far(int n) { return n * 3; }
"""
TWO = """
int sum(int), far(int);
int main(int argc, char **argv) {
    return sum(argc) + far(argc);
}
"""
HEADER = """
static inline int add(int a, int b) {
    return a ^ b;
}
"""


@pytest.mark.parametrize("flags", [(), ("-Wl,--emit-relocs",)], ids=["plain", "relocations"])
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("compiler", ["gcc", "clang-16"])
def test_lines_are_those_of_addr2line(compiler: str, version: int, flags: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    for name, text in (("one.c", ONE), ("two.c", TWO), ("add.h", HEADER)):
        (tmp_path / name).write_text(text)
    subprocess.run(
        [compiler, "-O2", "-g", f"-gdwarf-{version}", *flags, "-o", "program", "one.c", "two.c"],
        cwd=tmp_path,
        check=True,
    )
    program = str(tmp_path / "program")
    with closing(SourceLines(program)) as found:
        compare(found, program, tmp_path)


def compare(found: SourceLines, program: str, folder: Path) -> None:
    assert found.known
    addresses = [at for _, size, start in segments(program) for at in range(start, start + size)]
    asked = "\n".join(f"{address:#x}" for address in addresses)
    said = subprocess.run(["addr2line", "-e", program], input=asked, capture_output=True, text=True, check=True).stdout
    compared, files = 0, set()
    for address, answer in zip(addresses, said.splitlines(), strict=True):
        file, _, line = answer.split(" ")[0].rpartition(":")
        mine = found.line(address)
        if line.isdigit() and line != "0":
            assert mine is not None, hex(address)
            assert (mine.file, mine.line) == (os.path.normpath(file), int(line)), hex(address)
            compared += 1
            files.add(mine.file)
        else:
            assert mine is None, hex(address)
    assert compared > 40
    assert files == {str(folder / name) for name in ("one.c", "two.c", "add.h")}


def test_a_file_without_debug_information_has_no_lines(tmp_path: Path) -> None:
    other = tmp_path / "text"
    other.write_text("no ELF file")
    assert SourceLines(str(other)).line(0) is None
    assert not SourceLines(str(other)).known
    assert not SourceLines(str(tmp_path / "none")).known


def test_a_line_s_text_is_read_where_the_source_is(tmp_path: Path) -> None:
    from archlbr.report.lines import SourceLine

    source = tmp_path / "a.c"
    source.write_text("one\n\ttwo  \n")
    assert [source_text(SourceLine(str(source), line)) for line in (1, 2, 3)] == ["one", "two", ""]
    assert source_text(SourceLine(str(tmp_path / "none"), 1)) == ""
