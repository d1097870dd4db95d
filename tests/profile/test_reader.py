"""What is written is read back; what is damaged is refused in one line."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlbr.errors import InputError
from archlbr.profile.perfdata import attr as a
from archlbr.profile.perfdata import reader as reader_module
from archlbr.profile.perfdata.features import About
from archlbr.profile.perfdata.header import Header, Section
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.records import record as pack
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Comm, Exit, Fork, Mapping, Mmap
from tests.profile.examples import ATTR, LIBRARY, PROGRAM, flat, record, stacks, times

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = About(
    ("archlbr", "record", "x y"), 8, "box", "6.1", "1.0", "x86_64", 4, 2, "A Processor", "GenuineIntel,6,143,8"
)


def test_everything_written_is_read_back(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", ATTR, ABOUT) as profile:
        record(profile)
    with Reader(tmp_path / "perf.data") as found:
        assert found.attrs == (ATTR,)
        assert found.command_line == ABOUT.command_line
        assert found.strings == {
            "hostname": "box",
            "osrelease": "6.1",
            "version": "1.0",
            "arch": "x86_64",
            "cpudesc": "A Processor",
            "cpuid": "GenuineIntel,6,143,8",
        }
        assert found.build_ids == {"/opt/prog": PROGRAM.build_id, "/opt/lib.so": LIBRARY.build_id}
        assert found.sample_span == (5000, 6001)
        expected = [
            ("Comm", *Comm(7, 7, 10, "prog", True)),
            ("Mmap", *Mmap(7, 7, 1010, PROGRAM._replace(build_id=b""))),
            ("Mmap", *Mmap(7, 7, 2010, LIBRARY._replace(build_id=b""))),
            ("sample", 7, 8, 5000, 0x401100, 101, 2, [(0x401010, 0x401100, 0x100092), (0x401105, 0x401008, 0x600001)]),
            ("sample", 7, 8, 6000, 0x401101, 101, 2, []),
            ("sample", 7, 8, 6001, 0x7F0000000010, 101, 2, [(0x401200, 0x7F0000000010, 0x500002)]),
            ("Fork", *Fork(9, 7, 9, 8, 7000)),
            ("Exit", *Exit(9, 7, 9, 8, 8000)),
        ]
        assert flat(found.events()) == expected
        # Each call starts anew.
        assert flat(found.events()) == expected


ADDRESSES = st.integers(1, 2**63 - 1)
ENTRIES = st.tuples(ADDRESSES, ADDRESSES, st.integers(0, 2**64 - 1))
TIMES = st.integers(0, 2**40)
TASKS = st.integers(0, 2**31 - 1)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
ROWS = st.one_of(
    st.tuples(st.just("comm"), TASKS, TASKS, TIMES, NAMES, st.booleans()),
    st.tuples(
        st.just("mmap2"),
        TASKS,
        TASKS,
        TIMES,
        st.tuples(ADDRESSES, ADDRESSES, ADDRESSES, NAMES).map(lambda row: Mapping(*row)),
    ),
    st.tuples(st.just("fork"), TASKS, TASKS, TASKS, TASKS, TIMES),
    st.tuples(st.just("exit"), TASKS, TASKS, TASKS, TASKS, TIMES),
    st.tuples(
        st.just("samples"),
        TASKS,
        TASKS,
        st.lists(st.tuples(TIMES, ADDRESSES, st.lists(ENTRIES, max_size=4)), max_size=6),
    ),
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROWS, max_size=12))
def test_any_recording_is_read_back_in_strict_order(rows: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "perf.data"
    expected: list[tuple[Any, ...]] = []
    with Writer(path, ATTR) as profile:
        for kind, pid, tid, *rest in rows:
            if kind != "samples":
                getattr(profile, kind)(pid, tid, *rest)
            if kind == "comm":
                name = rest[1].encode()[:15].decode("utf-8", "surrogateescape")
                expected.append(("Comm", pid, tid, None, name, rest[2]))
            elif kind == "mmap2":
                expected.append(("Mmap", pid, tid, None, rest[1]))
            elif kind in ("fork", "exit"):
                expected.append((kind.title(), pid, rest[0], tid, rest[1], None))
            elif rest[0]:
                moments, ips, entries = zip(*rest[0], strict=True)
                read, counts = stacks(*entries)
                profile.samples(pid, tid, times(*moments), times(*ips), 3, read, counts)
                for ip, stack in zip(ips, entries, strict=True):
                    expected.append(("sample", pid, tid, None, ip, 3, 2, [entry[:2] for entry in stack]))
    with Reader(path) as found:
        got = flat(found.events())
    stamps = [row[5] if row[0] in ("Fork", "Exit") else row[3] for row in got]
    assert all(early < late for early, late in pairwise(stamps))
    plain = []
    for row in got:
        words = list(row)
        words[5 if row[0] in ("Fork", "Exit") else 3] = None
        if row[0] == "sample":
            words[7] = [entry[:2] for entry in row[7]]
        plain.append(tuple(words))
    assert plain == expected


def test_records_across_the_reader_s_chunks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        record(profile)
    with Reader(tmp_path / "perf.data") as found:
        whole = flat(found.events())
        for chunk in range(136, 400, 8):
            monkeypatch.setattr(reader_module, "CHUNK", chunk)
            assert flat(found.events()) == whole


# --- files that perf may write and we do not ---------------------------------------------------------------------


def sample_file(path: Path, body: bytes, attr: a.Attr, size: int = 112, extra: bytes = b"") -> Path:
    """Write a file of one sample record with the given body, its attribute `size` bytes long, then other records."""
    raw = attr.pack()[:size].ljust(size, b"\0")
    raw = raw[:4] + struct.pack("<I", size) + raw[8:]
    data = extra + pack(9, 2, body)
    attrs = Section(104, size + 16)
    where = Section(104 + size + 16, len(data))
    path.write_bytes(Header(size + 16, attrs, where, 0).pack() + raw + Section(104, 0).pack() + data)
    return path


ALL_FIELDS = (
    a.IDENTIFIER | a.IP | a.TID | a.TIME | a.ADDR | a.ID | a.STREAM_ID | a.CPU | a.PERIOD | a.READ | a.CALLCHAIN | a.RAW
    | a.BRANCH_STACK
)  # fmt: skip


@pytest.mark.parametrize("size", [80, 96, 104, 112, 120, 128, 136])
def test_every_field_before_the_stack_is_passed_over(tmp_path: Path, size: int) -> None:
    """All fixed fields, a group read of two values with ids, a call chain, raw bytes, a hardware index."""
    attr = ATTR._replace(sample_type=ALL_FIELDS, branch_sample_type=9 | a.BRANCH_HW_INDEX, read_format=1 | 2 | 4 | 8)
    body = struct.pack("<QQiiQQQQQQ", 5, 0x401000, 7, 8, 99, 1, 5, 5, 0, 101)
    body += struct.pack("<QQQQQQQ", 2, 1, 1, 10, 5, 20, 6)
    body += struct.pack("<QQQQ", 3, 0xFFFFFFFFFFFFFE00, 0x401000, 0x402000)
    body += struct.pack("<I12s", 12, b"raw")
    body += struct.pack("<QQ6Q", 2, 2**64 - 1, 1, 2, 3, 4, 5, 6)
    with Reader(sample_file(tmp_path / "x", body, attr, size)) as found:
        assert flat(found.events()) == [("sample", 7, 8, 99, 0x401000, 101, 2, [(1, 2, 3), (4, 5, 6)])]


def test_a_file_without_most_fields_reads_as_zeros(tmp_path: Path) -> None:
    with Reader(sample_file(tmp_path / "x", struct.pack("<Q", 0x401000), ATTR._replace(sample_type=a.IP), 64)) as found:
        assert flat(found.events()) == [("sample", 0, 0, 0, 0x401000, 101, 2, [])]


def test_unknown_records_and_aux_payloads_are_passed_over(tmp_path: Path) -> None:
    old_mmap = pack(1, 2, struct.pack("<iiQQQ8s", 7, 7, 0x1000, 0x2000, 0, b"/bin/x") + struct.pack("<iiQ", 7, 7, 5))
    odd = pack(67, 0, b"x" * 92)
    aux = pack(71, 0, struct.pack("<QQQQQ", 16, 0, 0, 0, 0)) + b"\xff" * 16
    body = struct.pack("<QiiQQQ", 0x401000, 7, 8, 99, 1, 0)
    with Reader(sample_file(tmp_path / "x", body, ATTR, extra=pack(4711, 0, b"") + odd + old_mmap + aux)) as found:
        assert flat(found.events()) == [
            ("Mmap", *Mmap(7, 7, 5, Mapping(0x1000, 0x2000, 0, "/bin/x"))),
            ("sample", 7, 8, 99, 0x401000, 1, 2, []),
        ]


def test_a_build_id_in_a_mapping_is_read(tmp_path: Path) -> None:
    note = struct.pack("<B3x20s", 20, bytes(range(20)))
    body = struct.pack("<iiQQQ", 7, 7, 0x1000, 0x2000, 0) + note + struct.pack("<II", 5, 2) + b"/bin/x\0\0"
    mapping = pack(10, 2 | 1 << 14, body + struct.pack("<iiQ", 7, 7, 5))
    sample = struct.pack("<QiiQQQ", 0x401000, 7, 8, 99, 1, 0)
    with Reader(sample_file(tmp_path / "x", sample, ATTR, extra=mapping)) as found:
        assert found.sideband() == [Mmap(7, 7, 5, Mapping(0x1000, 0x2000, 0, "/bin/x", bytes(range(20))))]


def test_side_band_comes_by_time_whatever_its_place(tmp_path: Path) -> None:
    def comm(time: int) -> bytes:
        return pack(3, 0, struct.pack("<ii8s", 7, 7, b"x") + struct.pack("<iiQ", 7, 7, time))

    sample = struct.pack("<QiiQQQ", 0x401000, 7, 8, 99, 1, 0)
    with Reader(sample_file(tmp_path / "x", sample, ATTR, extra=comm(9) + comm(4))) as found:
        assert [event.time for event in found.sideband()] == [4, 9]


# --- damage ------------------------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    """Read whatever a file has."""
    with Reader(path) as found:
        for _ in found.events():
            pass


def refusal(path: Path, raw: bytes) -> str:
    """Return the one line a damaged file is refused with."""
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_all(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The bytes of the example's file."""
    with Writer(tmp_path / "whole", ATTR, About(("x",), hostname="box")) as profile:
        record(profile)
    return (tmp_path / "whole").read_bytes()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, whole: bytes) -> None:
    for size in range(len(whole)):
        refusal(tmp_path / "cut", whole[:size])


def test_a_changed_byte_is_read_or_refused_and_nothing_else(tmp_path: Path, whole: bytes) -> None:
    refused = []
    for at in range(len(whole)):
        for value in {0, 0xFF, whole[at] ^ 0x80, whole[at] ^ 1} - {whole[at]}:
            path = tmp_path / "changed"
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                read_all(path)
            except InputError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert [said for said in refused if "\n" in said] == []


def put(raw: bytes, at: int, layout: str, *values: int) -> bytes:
    """Return bytes with others in their place."""
    new = struct.pack(layout, *values)
    return raw[:at] + new + raw[at + len(new) :]


DATA = 240


@pytest.mark.parametrize(
    ("at", "layout", "values", "says"),
    [
        (0, "<8s", [b"PERFILE1"], "not a perf.data file: it starts with b'PERFILE1', not b'PERFILE2'"),
        (0, "<8s", [b"2ELIFREP"], "perf.data of a big-endian machine: only little-endian files can be read"),
        (8, "<Q", [16], "perf.data in pipe mode: only files can be read; run `perf inject -i IT -o FILE` first"),
        (8, "<Q", [50], "perf.data header: 50 bytes, 104 needed; the file is cut short or damaged"),
        (16, "<Q", [8], "attribute entries of 8 bytes: 80..4096 expected"),
        (32, "<Q", [100], "attribute section of 100 bytes: not a positive multiple of 128"),
        (112 + 4, "<I", [200], "event attributes at offset 0x70: size 200 is not in 64..112"),
        (DATA + 6, "<H", [0], "record at offset 0xf0: size 0 is no multiple of 8; damaged file"),
        (DATA + 6, "<H", [44], "record at offset 0xf0: size 44 is no multiple of 8; damaged file"),
        (DATA, "<I", [10], "record at offset 0xf0: type 10 of 40 bytes is too short for its fields"),
        (DATA, "<I", [81], "record at offset 0xf0: compressed records cannot be read; record without -z"),
    ],
)  # fmt: skip
def test_each_kind_of_damage_is_named_with_its_numbers(
    tmp_path: Path, whole: bytes, at: int, layout: str, values: list[Any], says: str
) -> None:
    assert refusal(tmp_path / "x", put(whole, at, layout, *values)) == says


def test_a_stack_larger_than_its_record_is_named(tmp_path: Path, whole: bytes) -> None:
    at = whole.index(struct.pack("<Q", 0x401100)) - 8
    said = refusal(tmp_path / "x", put(whole, at + 40, "<Q", 2**63))
    assert said == f"sample at offset {at:#x}: BRANCH_STACK does not fit in 96 bytes; damaged file"


def test_a_record_that_reaches_beyond_the_data_is_named(tmp_path: Path, whole: bytes) -> None:
    size = struct.unpack_from("<Q", whole, 48)[0]
    at = DATA + size - 8
    said = refusal(tmp_path / "x", put(whole, at + 6, "<H", 64))
    assert said == f"record at offset {at:#x} reaches beyond the data's end at {at + 8:#x}; cut short?"


def test_a_record_whose_fields_only_fit_over_its_trailer_is_refused(tmp_path: Path) -> None:
    sample = struct.pack("<QiiQQQ", 0x401000, 7, 8, 99, 1, 0)
    path = sample_file(tmp_path / "x", sample, ATTR, extra=pack(10, 2, bytes(64)))
    with pytest.raises(InputError, match=r"record at offset 0xe8: type 10 of 72 bytes is too short for its fields$"):
        read_all(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot read .*nowhere: No such file or directory$"):
        Reader(tmp_path / "nowhere")


def test_a_folder_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot read .*: Is a directory$"):
        Reader(tmp_path)


def test_arrays_that_are_read_are_ours_to_keep(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        record(profile)
    with Reader(tmp_path / "perf.data") as found:
        batches = list(found.samples())
    assert np.concatenate([batch.counts for batch in batches]).tolist() == [2, 0, 1]
