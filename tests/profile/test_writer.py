"""The writer's bytes, taken apart here once more with the struct module alone."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.errors import InputError, InternalError
from archlbr.profile.perfdata.attr import BRANCH_ANY, BRANCH_KERNEL, BRANCH_USER, branch_attr
from archlbr.profile.perfdata.writer import Writer
from tests.profile.examples import ATTR, LIBRARY, PROGRAM, record, stacks, times

if TYPE_CHECKING:
    from pathlib import Path

    from archlbr.profile.perfdata.attr import Attr

KERNEL = 0xFFFFFFFF81000000


def records(raw: bytes) -> list[tuple[int, int, bytes]]:
    """Return (type, misc, body) of each record of the data section."""
    at, size = struct.unpack_from("<QQ", raw, 40)
    end, out = at + size, []
    while at < end:
        kind, misc, length = struct.unpack_from("<IHH", raw, at)
        out.append((kind, misc, raw[at + 8 : at + length]))
        at += length
    assert at == end
    return out


def written(path: Path, attr: Attr = ATTR, rows: list[list[tuple[int, int, int]]] | None = None) -> bytes:
    """Return the file that one batch of stacks, or the whole example, makes."""
    with Writer(path / "perf.data", attr) as profile:
        if rows is None:
            record(profile)
        else:
            read, counts = stacks(*rows)
            profile.samples(7, 7, times(*range(1, len(rows) + 1)), read[:, 0, 0], 1, read, counts)
    return (path / "perf.data").read_bytes()


def entries(body: bytes) -> list[tuple[int, int, int]]:
    """Return (from, to, flags) of a sample's body: ip, pid|tid, time, period, nr, entries."""
    count = struct.unpack_from("<Q", body, 32)[0]
    assert len(body) == 40 + 24 * count
    return [struct.unpack_from("<3Q", body, 40 + 24 * index) for index in range(count)]


def test_the_header_says_where_everything_is(tmp_path: Path) -> None:
    raw = written(tmp_path)
    magic, size, attr_size, attrs, attrs_size, data, data_size, types, types_size = struct.unpack_from("<8s8Q", raw)
    assert (magic, size, attr_size, attrs_size, types, types_size) == (b"PERFILE2", 104, 128, 128, 0, 0)
    features = [bit for bit in range(256) if raw[72 + bit // 8] >> bit % 8 & 1]
    assert features == [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 21, 28]
    table = data + data_size
    sections = [struct.unpack_from("<QQ", raw, table + 16 * index) for index in range(len(features))]
    at = table + 16 * len(features)
    for offset, length in sections:
        assert offset == at
        at += length
    assert at == len(raw)
    # The attribute's own ids stand between the header and the attributes.
    assert struct.unpack_from("<QQ", raw, attrs + 112) == (104, 8)
    assert struct.unpack_from("<Q", raw, 104) == (1,)


def test_the_attribute_is_version_5_with_every_field_a_tool_asks_for(tmp_path: Path) -> None:
    raw = written(tmp_path)
    at = struct.unpack_from("<Q", raw, 24)[0]
    kind, size, config, period, sample_type, read_format, flags = struct.unpack_from("<IIQQQQQ", raw, at)
    assert (kind, size, config, period, sample_type, read_format) == (0, 112, 4, 101, 0x907, 0)
    # exclude_kernel, exclude_hv, mmap, comm, task, sample_id_all, mmap2, comm_exec.
    assert [bit for bit in range(64) if flags >> bit & 1] == [5, 6, 8, 9, 13, 18, 23, 24]
    # USER | ANY | TYPE_SAVE.
    assert struct.unpack_from("<Q", raw, at + 72) == (1 | 8 | 1 << 16,)


def test_records_come_in_order_with_strictly_increasing_times(tmp_path: Path) -> None:
    rows = records(written(tmp_path))
    assert [kind for kind, _, _ in rows] == [3, 10, 10, 9, 9, 9, 7, 4, 68]
    stamps = [
        struct.unpack_from("<Q", body, 16)[0] if kind == 9 else struct.unpack("<Q", body[-8:])[0]
        for kind, _, body in rows[:-1]
    ]
    assert stamps == [10, 1010, 2010, 5000, 6000, 6001, 7000, 8000]


def test_side_band_records_stay_a_microsecond_apart(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        read, counts = stacks([])
        profile.comm(7, 7, 0, "x")
        profile.fork(9, 9, 7, 7, 0)
        profile.samples(7, 7, times(1), times(0), 1, read, counts)
        profile.mmap2(9, 9, 1003, PROGRAM)
    stamps = [
        struct.unpack_from("<Q", body, 16)[0] if kind == 9 else struct.unpack("<Q", body[-8:])[0]
        for kind, _, body in records((tmp_path / "perf.data").read_bytes())[:-1]
    ]
    # COMM at 1, FORK 1000 later, the sample just behind it, MMAP2 1000 behind the FORK.
    assert stamps == [1, 1001, 1002, 2001]


def test_a_fork_says_its_time_twice_and_both_are_the_same(tmp_path: Path) -> None:
    body = next(body for kind, _, body in records(written(tmp_path)) if kind == 7)
    assert struct.unpack("<iiiiQiiQ", body) == (9, 7, 9, 8, 7000, 7, 8, 7000)


def test_a_mapping_has_every_field(tmp_path: Path) -> None:
    _, misc, body = next(row for row in records(written(tmp_path)) if row[0] == 10)
    assert misc == 2
    assert struct.unpack_from("<iiQQQIIQQII", body) == (7, 7, 0x401000, 0x2000, 0x1000, 8, 1, 77, 1, 5, 2)
    assert body[64:-16] == b"/opt/prog".ljust(16, b"\0")


def test_stacks_are_written_newest_first_as_the_registers_hold_them(tmp_path: Path) -> None:
    rows = [body for kind, _, body in records(written(tmp_path)) if kind == 9]
    assert [[entry[:2] for entry in entries(body)] for body in rows] == [
        [(0x401010, 0x401100), (0x401105, 0x401008)],
        [],
        [(0x401200, 0x7F0000000010)],
    ]
    assert struct.unpack_from("<QiiQQ", rows[0]) == (0x401100, 7, 8, 5000, 101)
    # Not mispredicted, 9 cycles, COND; mispredicted, RET.
    assert [entry[2] for entry in entries(rows[0])] == [1 << 1 | 9 << 4 | 1 << 20, 1 | 6 << 20]


@pytest.mark.parametrize("count", [2, 4])
def test_a_stack_ends_at_its_first_empty_entry(tmp_path: Path, count: int) -> None:
    """Entries of zeros would be taken for branches from 0 to 0; what lies behind one is older than the last wipe."""
    read, _ = stacks([(0x401010, 0x401020, 0), (0, 0, 0), (0x401030, 0x401040, 0)])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(7, 7, times(1), times(0x401020), 1, read, np.array([count]))
    body = records((tmp_path / "perf.data").read_bytes())[0][2]
    assert [entry[:2] for entry in entries(body)] == [(0x401010, 0x401020)]


def test_a_stack_ends_at_its_count(tmp_path: Path) -> None:
    read, _ = stacks([(1, 2, 0), (3, 4, 0), (5, 6, 0)])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(7, 7, times(1), times(2), 1, read, np.array([1]))
    assert [entry[:2] for entry in entries(records((tmp_path / "perf.data").read_bytes())[0][2])] == [(1, 2)]


CROSSING = [(0x401010, 0x401020, 0), (KERNEL, 0x401000, 0), (0x400FF0, KERNEL + 5, 0), (0x400F00, 0x400F10, 0)]


def test_kernel_entries_stay_out_of_a_user_profile(tmp_path: Path) -> None:
    body = records(written(tmp_path, rows=[CROSSING]))[0][2]
    assert [entry[:2] for entry in entries(body)] == [(0x401010, 0x401020), (0x400F00, 0x400F10)]


def test_a_source_hidden_by_the_ring_filter_stays_out_too(tmp_path: Path) -> None:
    """A branch from a ring that is not recorded shows a source of all ones (reference architecture.md 7, fact 5)."""
    body = records(written(tmp_path, rows=[[(2**64 - 1, 0x401000, 0), (0x400F00, 0x400F10, 0)]]))[0][2]
    assert [entry[:2] for entry in entries(body)] == [(0x400F00, 0x400F10)]


def test_kernel_entries_stay_in_where_the_kernel_is_recorded(tmp_path: Path) -> None:
    attr = branch_attr("branches", 101, BRANCH_USER | BRANCH_KERNEL | BRANCH_ANY)
    raw = written(tmp_path, attr, [CROSSING])
    assert [entry[:2] for entry in entries(records(raw)[0][2])] == [row[:2] for row in CROSSING]
    at = struct.unpack_from("<Q", raw, 24)[0]
    assert struct.unpack_from("<Q", raw, at + 40)[0] >> 5 & 1 == 0


def test_a_sample_is_the_guest_s_own_user_or_kernel_mode(tmp_path: Path) -> None:
    """The modes 4 and 5 (a guest seen from its host) would make perf drop the sample."""
    read, counts = stacks([], [])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(7, 7, times(1, 2), times(0x401000, KERNEL), 1, read, counts)
    assert [misc for kind, misc, _ in records((tmp_path / "perf.data").read_bytes()) if kind == 9] == [2, 1]


def test_far_transfers_have_the_type_the_caller_knows(tmp_path: Path) -> None:
    read, counts = stacks([(0x401010, 0x401020, 8 << 56), (0x401000, 0x401008, 0)])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(7, 7, times(1), times(2), 1, read, counts, np.array([[7, 7, 0, 0]]))
    body = records((tmp_path / "perf.data").read_bytes())[0][2]
    assert [entry[2] >> 20 & 15 for entry in entries(body)] == [7, 1]


def test_tasks_and_periods_may_differ_within_a_batch(tmp_path: Path) -> None:
    read, counts = stacks([], [])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(
            np.array([7, 7]), np.array([7, 2**31 - 1]), times(1, 2), times(3, 4), np.array([5, 6]), read, counts
        )
    rows = [
        struct.unpack_from("<QiiQQ", body)
        for kind, _, body in records((tmp_path / "perf.data").read_bytes())
        if kind == 9
    ]
    assert rows == [(3, 7, 7, 1, 5), (4, 7, 2**31 - 1, 2, 6)]


def test_each_file_with_a_build_id_is_listed_once(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        for mapping in (
            PROGRAM,
            LIBRARY,
            PROGRAM._replace(start=0x500000),
            LIBRARY._replace(path="[vdso]", build_id=b""),
        ):
            profile.mmap2(7, 7, 0, mapping)
    raw = (tmp_path / "perf.data").read_bytes()
    data, size = struct.unpack_from("<QQ", raw, 40)
    at, length = struct.unpack_from("<QQ", raw, data + size)
    found, end = [], at + length
    while at < end:
        _, misc, step = struct.unpack_from("<IHH", raw, at)
        pid, note, used = struct.unpack_from("<i20sB", raw, at + 8)
        assert (misc, pid) == (2 | 1 << 15, -1)
        found.append((raw[at + 36 : at + step].rstrip(b"\0").decode(), note[:used]))
        at += step
    assert found == [("/opt/prog", PROGRAM.build_id), ("/opt/lib.so", LIBRARY.build_id)]


def test_a_batch_larger_than_the_encoder_s_is_written_whole(tmp_path: Path) -> None:
    rows = 3000
    read = np.ones((rows, 2, 3), dtype=np.uint64)
    read[:, :, 0] = np.arange(1, rows + 1, dtype=np.uint64)[:, np.newaxis]
    counts = np.arange(rows) % 3
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(7, 7, np.arange(rows, dtype=np.uint64), read[:, 0, 0], 1, read, counts)
    found = records((tmp_path / "perf.data").read_bytes())[:-1]
    assert [[entry[0] for entry in entries(body)] for _, _, body in found] == [[n + 1] * (n % 3) for n in range(rows)]


def test_a_stack_that_no_record_holds_is_our_own_fault(tmp_path: Path) -> None:
    read = np.ones((1, 3000, 3), dtype=np.uint64)
    with pytest.raises(InternalError, match="3000 entries"), Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.samples(7, 7, times(1), times(1), 1, read, np.array([3000]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("event", "period", "says"),
    [("nonsense", 1, "unknown event 'nonsense'"), ("branches:u", 0, "period 0"), ("cycles", -5, "period -5")],
)
def test_a_wrong_event_or_period_is_refused(event: str, period: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        branch_attr(event, period)
