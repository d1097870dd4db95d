"""Each complaint on a profile that has just this fault, and none on one that has none."""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archlbr.profile.complaints import complaints
from archlbr.profile.perfdata import attr as a
from archlbr.profile.perfdata.attr import branch_attr
from archlbr.profile.perfdata.header import Section
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping
from tests.foreign.tools import tools

if TYPE_CHECKING:
    from pathlib import Path

START = 0x401000
IDENTITY = "00112233445566778899aabbccddeeff00112233"
PROGRAM = "int main(void) { return 0; }\n"
SOUND = ("-gdwarf-4", "-Wl,--emit-relocs", f"-Wl,--build-id=0x{IDENTITY}")
ANY_USER = a.BRANCH_USER | a.BRANCH_ANY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that compiles the program with flags, once each."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: no ELF file to complain of")
    folder = tmp_path_factory.mktemp("built")
    source = folder / "program.c"
    source.write_text(PROGRAM)
    known: dict[tuple[str, ...], Path] = {}

    def build(*flags: str) -> Path:
        if flags not in known:
            place = folder / str(len(known))
            place.mkdir()
            known[flags] = place / "program"
            subprocess.run(["gcc", "-o", known[flags], source, *flags], check=True)
        return known[flags]

    return build


def written(
    folder: Path,
    program: Path | str,
    *,
    branches: int = ANY_USER,
    identity: bytes = bytes.fromhex(IDENTITY),
    mapped: bool = True,
    at: int = 10,
    sampled_pid: int = 7,
    mapped_at: int = 2,
    entry: tuple[int, int, int] = (START + 4, START, 0),
) -> str:
    """Write a profile of one sample with one branch."""
    name = str(folder / "perf.data")
    with Writer(name, branch_attr("branches", 5, branches)) as writer:
        writer.comm(7, 7, 1, "program", exec=True)
        if mapped:
            writer.mmap2(7, 7, mapped_at, Mapping(START, 0x1000, 0x1000, str(program), identity))
        stack = np.array([[entry]], dtype=np.uint64)
        one = np.array([1], dtype=np.uint64)
        writer.samples(sampled_pid, sampled_pid, one * np.uint64(at), one * np.uint64(START), 5, stack, np.array([1]))
    return name


def names(profile: str) -> list[str]:
    """Return the names of a profile's complaints."""
    with Reader(profile) as reader:
        return [row.name for row in complaints(reader)]


def patched(profile: str, old: bytes, new: bytes) -> str:
    """Replace bytes that stand in a file once."""
    with open(profile, "rb") as file:
        raw = file.read()
    assert raw.count(old) == 1
    with open(profile, "wb") as file:
        file.write(raw.replace(old, new))
    return profile


def test_a_sound_profile_of_a_sound_program_has_none(built: Any, tmp_path: Path) -> None:
    assert names(written(tmp_path, built(*SOUND))) == []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-gdwarf-5", *SOUND[1:]), "dwarf-5"),
        (SOUND[1:], "no-lines"),
        ((SOUND[0], SOUND[2]), "no-relocations"),
        ((*SOUND[:2], "-Wl,--build-id=none"), "no-build-id"),
        ((*SOUND[:2], "-Wl,--build-id=0x1234"), "other-build"),
    ],
)
def test_a_program_s_own_faults(flags: tuple[str, ...], expected: str, built: Any, tmp_path: Path) -> None:
    assert names(written(tmp_path, built(*flags))) == [expected]


def test_lld_s_layout_shares_a_page_unless_told_otherwise(built: Any, tmp_path: Path) -> None:
    folder = next((path.parent for path in tools("ld.lld")), None)
    if folder is None:
        pytest.skip("ld.lld is not installed: apt-get install lld-16")
    lld = (*SOUND, f"-B{folder}", "-fuse-ld=lld", "-pie")
    assert names(written(tmp_path, built(*lld))) == ["shared-page"]
    assert names(written(tmp_path, built(*lld, "-Wl,-z,separate-code"))) == []


def test_a_stripped_program(built: Any, tmp_path: Path) -> None:
    stripped = tmp_path / "program"
    subprocess.run(["strip", "-o", stripped, built(*SOUND)], check=True)
    assert names(written(tmp_path, stripped)) == ["stripped", "no-relocations", "no-lines"]


def test_a_program_that_is_gone(tmp_path: Path) -> None:
    with Reader(written(tmp_path, "/nowhere/program")) as reader:
        (only,) = complaints(reader)
    assert str(only) == (
        "BOLT, llvm-profgen, AutoFDO: /nowhere/program is not here; give the tools a copy that is named program: "
        "llvm-profgen finds it by that name alone"
    )


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"identity": b""}, ["build-id-not-recorded"]),
        ({"branches": a.BRANCH_USER | 1 << 4}, ["filtered"]),
        ({"branches": ANY_USER | a.BRANCH_KERNEL}, ["kernel"]),
        ({"mapped": False}, ["no-mappings"]),
        ({"sampled_pid": 8}, ["unknown-process"]),
        ({"mapped_at": 10**6, "at": 10**6 - 1}, []),
    ],
)
def test_a_profile_s_faults(faults: dict[str, Any], expected: list[str], built: Any, tmp_path: Path) -> None:
    assert names(written(tmp_path, built(*SOUND), **faults)) == expected


def test_samples_before_the_first_mapping(built: Any, tmp_path: Path) -> None:
    # The writer keeps times in order, so the sample is moved back behind its back.
    profile = written(tmp_path, built(*SOUND), mapped_at=10**6, at=2 * 10**6)
    assert names(
        patched(profile, struct.pack("<QQQ", START, 7 << 32 | 7, 2 * 10**6), struct.pack("<QQQ", START, 7 << 32 | 7, 5))
    ) == ["late-mappings"]


def test_entries_without_flags_and_entries_of_zeros(built: Any, tmp_path: Path) -> None:
    old = struct.pack("<QQQ", START + 4, START, 2 | 1 << 20)
    profile = written(tmp_path, built(*SOUND))
    assert names(patched(profile, old, struct.pack("<QQQ", START + 4, START, 0))) == ["no-flags"]
    assert "padding" in names(patched(profile, struct.pack("<QQQ", START + 4, START, 0), bytes(24)))


def test_samples_of_a_guest(built: Any, tmp_path: Path) -> None:
    size = 48 + 24
    profile = written(tmp_path, built(*SOUND))
    assert names(patched(profile, struct.pack("<IHH", 9, 2, size), struct.pack("<IHH", 9, 5, size))) == ["guest-mode"]


def test_a_profile_without_samples(tmp_path: Path) -> None:
    name = str(tmp_path / "perf.data")
    with Writer(name, branch_attr("branches", 5)) as writer:
        writer.comm(7, 7, 1, "program", exec=True)
    assert names(name) == ["empty"]


class Claimed:
    """A reader whose attributes are what a test says, over a file without samples."""

    def __init__(self, reader: Reader, attr: a.Attr, size: int) -> None:
        self._reader = reader
        self.attr, self.attrs = attr, (attr,)
        self.header = reader.header._replace(attr_size=size + 16, data=Section(0, 0))
        self.build_ids: dict[str, bytes] = {}
        self.sideband, self.samples = reader.sideband, reader.samples


@pytest.mark.parametrize(
    ("sample_type", "size", "expected"),
    [
        (a.SAMPLE_TYPE | a.CALLCHAIN, 112, ["callchains", "empty"]),
        (a.SAMPLE_TYPE, 136, ["new-attributes", "empty"]),
        (a.SAMPLE_TYPE, 128, ["empty"]),
        (a.SAMPLE_TYPE & ~a.BRANCH_STACK, 112, ["no-branch-stacks"]),
    ],
)
def test_what_the_attributes_say(sample_type: int, size: int, expected: list[str], tmp_path: Path) -> None:
    name = str(tmp_path / "perf.data")
    attr = branch_attr("branches", 5, ANY_USER)
    with Writer(name, attr):
        pass
    with Reader(name) as reader:
        claimed: Any = Claimed(reader, attr._replace(sample_type=sample_type), size)
        assert [row.name for row in complaints(claimed)] == expected
