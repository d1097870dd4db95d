"""Spools of several processes become one file, by time, whatever was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlbr.errors import InputError
from archlbr.profile.perfdata import spool as spool_module
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.spool import Spool, merge
from archlbr.profile.perfdata.writer import Writer
from tests.profile.examples import ATTR, LIBRARY, PROGRAM, flat, record, stacks, times

if TYPE_CHECKING:
    from pathlib import Path


def merged(folder: Path, *paths: Path) -> list[tuple[object, ...]]:
    """Return the events of the file that spools merge into."""
    with Writer(folder / "perf.data", ATTR) as profile:
        merge(paths, profile)
        written = profile.written
    with Reader(folder / "perf.data") as found:
        rows = flat(found.events())
        assert sum(row[0] == "sample" for row in rows) == written
        return rows


def sampled(spool: Spool, pid: int, *moments: int) -> None:
    """Append samples whose ip is their time, so that they are known again."""
    read, counts = stacks(*[[(moment + 1, moment + 2, 0)] for moment in moments])
    spool.samples(pid, pid, times(*moments), times(*moments), 1, read, counts)


def test_one_spool_is_the_file_a_writer_would_have_made(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ATTR)
    record(spool)
    with Writer(tmp_path / "direct", ATTR) as profile:
        record(profile)
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        merge([tmp_path / "spool"], profile)
    assert (tmp_path / "perf.data").read_bytes() == (tmp_path / "direct").read_bytes()


def test_records_interleave_by_time(tmp_path: Path) -> None:
    one, two = Spool(tmp_path / "one", ATTR), Spool(tmp_path / "two", ATTR)
    sampled(one, 1, 10, 30, 50)
    sampled(two, 2, 20, 30, 40)
    rows = merged(tmp_path, tmp_path / "one", tmp_path / "two")
    # Equal times keep the order of the spools and are nudged apart.
    assert [(row[1], row[3], row[4]) for row in rows] == [
        (1, 10, 10), (2, 20, 20), (1, 30, 30), (2, 31, 30), (2, 40, 40), (1, 50, 50),
    ]  # fmt: skip


def test_build_ids_reach_the_file_s_table_and_not_its_records(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ATTR)
    for mapping in (PROGRAM, LIBRARY, PROGRAM):
        spool.mmap2(7, 7, 0, mapping)
    assert [row[0] for row in merged(tmp_path, tmp_path / "spool")] == ["Mmap"] * 3
    with Reader(tmp_path / "perf.data") as found:
        assert found.build_ids == {"/opt/prog": PROGRAM.build_id, "/opt/lib.so": LIBRARY.build_id}


def test_side_band_of_two_processes_stays_a_microsecond_apart(tmp_path: Path) -> None:
    for name, pid in (("one", 1), ("two", 2)):
        spool = Spool(tmp_path / name, ATTR)
        spool.comm(pid, pid, 5, name)
        spool.mmap2(pid, pid, 5, PROGRAM)
        sampled(spool, pid, 6)
    rows = merged(tmp_path, tmp_path / "one", tmp_path / "two")
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("Comm", 1, 5),
        ("Comm", 2, 1005),
        ("Mmap", 1, 2005),
        ("Mmap", 2, 3005),
        ("sample", 1, 3006),
        ("sample", 2, 3007),
    ]


def test_a_fork_that_is_nudged_says_its_new_time_throughout(tmp_path: Path) -> None:
    for name, pid in (("one", 1), ("two", 2)):
        Spool(tmp_path / name, ATTR).fork(pid + 10, pid + 10, pid, pid, 5)
    # The reader takes the time from the record's body; the file's order stands on its trailer.
    rows = merged(tmp_path, tmp_path / "one", tmp_path / "two")
    assert [row[5] for row in rows] == [5, 1005]
    raw = (tmp_path / "perf.data").read_bytes()
    assert raw.count((1005).to_bytes(8, "little")) == 2


def test_a_child_s_records_follow_its_fork_and_that_the_parent_s_mappings(tmp_path: Path) -> None:
    """The parent's times had been nudged beyond the clock: a child that began at the clock would precede its FORK."""
    parent = Spool(tmp_path / "parent", ATTR)
    for _ in range(5):
        parent.mmap2(1, 1, 0, PROGRAM)
    child = parent.forked(tmp_path / "child", 2, 2, 1, 1, 1)
    child.comm(2, 2, 1, "child", exec=True)
    sampled(child, 2, 2)
    rows = merged(tmp_path, tmp_path / "child", tmp_path / "parent")
    assert [row[0] for row in rows] == ["Mmap"] * 5 + ["Fork", "Comm", "sample"]


def test_a_process_after_exec_goes_on_in_its_spool(tmp_path: Path) -> None:
    first = Spool(tmp_path / "spool", ATTR)
    sampled(first, 1, 5, 5, 5)
    second = Spool(tmp_path / "spool", ATTR, after=first.timeline.last)
    second.comm(1, 1, 5, "other", exec=True)
    assert [(row[0], row[3]) for row in merged(tmp_path, tmp_path / "spool")] == [
        ("sample", 5), ("sample", 6), ("sample", 7), ("Comm", 1007),
    ]  # fmt: skip


def test_a_torn_last_record_is_left_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ATTR)
    record(spool)
    whole = (tmp_path / "spool").read_bytes()
    rows = merged(tmp_path, tmp_path / "spool")
    # A fork's record is the last but one; its end and the exit's are the only ends in this stretch.
    for size in range(len(whole) - 2 * 48, len(whole)):
        (tmp_path / "torn").write_bytes(whole[:size])
        assert merged(tmp_path, tmp_path / "torn") == rows[: 6 + (size >= len(whole) - 48)]


def test_an_empty_spool_and_one_torn_at_its_first_record_give_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "torn").write_bytes(b"\x09\0\0\0\x02\0\x60\0" * 3 + b"\1")
    assert merged(tmp_path, tmp_path / "empty", tmp_path / "torn") == []


def test_a_killed_process_leaves_what_it_wrote(tmp_path: Path) -> None:
    code = """if True:
        import sys, numpy as np
        from archlbr.profile.perfdata.spool import Spool
        from tests.profile.examples import ATTR
        spool = Spool(sys.argv[1], ATTR)
        read = np.ones((64, 32, 3), dtype=np.uint64)
        moment = 1
        print("ready", flush=True)
        while True:
            moments = np.arange(moment, moment + 64, dtype=np.uint64)
            spool.samples(1, 1, moments, moments, 1, read, np.full(64, 32))
            moment += 64
    """
    path = tmp_path / "spool"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not path.exists() or path.stat().st_size < 1 << 21:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    rows = merged(tmp_path, path)
    assert [row[3] for row in rows] == list(range(1, path.stat().st_size // 816 + 1))


def test_a_damaged_spool_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"\x09\0\0\0\x02\0\x03\0")
    with pytest.raises(InputError, match=r"spool: record at offset 0x0: size 3 is no multiple of 8"):
        merged(tmp_path, tmp_path / "spool")


def test_a_missing_spool_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot read .*nowhere: No such file or directory$"):
        merged(tmp_path, tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    paths = []
    for number in range(40):
        paths.append(tmp_path / f"spool{number}")
        spool = Spool(paths[-1], ATTR)
        sampled(spool, number, 10 * number + 1, 10 * number + 500)
    before = len(os.listdir("/proc/self/fd"))
    rows = merged(tmp_path, *paths)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(rows) == 80


SPOOLS = st.lists(st.lists(st.integers(1, 60), max_size=30), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(moments=SPOOLS, chunk=st.sampled_from([0, 1 << 20]), sideband=st.booleans())
def test_any_spools_merge_into_one_sorted_list(
    moments: list[list[int]], chunk: int, sideband: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    expected = []
    for pid, row in enumerate(moments):
        spool = Spool(folder / str(pid), ATTR)
        if sideband and row:
            spool.comm(pid, pid, row[0], "x")
            expected.append((row[0], pid, "Comm", 0))
        for number, moment in enumerate(row):
            sampled(spool, pid, moment)
            expected.append((spool.timeline.last, pid, "sample", number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "CHUNK", chunk)
        # A chunk always holds the largest record; here that is small, so that several chunks are read.
        patch.setattr(spool_module.records, "MAX_SIZE", 65528 if chunk else 120)
        rows = merged(folder, *[folder / str(pid) for pid in range(len(moments))])
    got = [(row[1], row[0]) for row in rows]
    assert got == [(pid, kind) for _, pid, kind, _ in sorted(expected, key=lambda row: row[:2])]
    # Each process's own samples keep their order.
    for pid, row in enumerate(moments):
        assert [entry[4] for entry in rows if entry[0] == "sample" and entry[1] == pid] == row
    assert all(early < late for early, late in pairwise([row[3] for row in rows]))


def test_memory_does_not_grow_with_the_spools(tmp_path: Path) -> None:
    """Two spools of 16 MB each are merged with a few chunks in memory."""
    read = np.ones((1000, 32, 3), dtype=np.uint64)
    for pid in (1, 2):
        spool = Spool(tmp_path / str(pid), ATTR)
        for at in range(0, 20_000, 1000):
            spool.samples(
                pid, pid, np.arange(at, at + 1000, dtype=np.uint64), read[:, 0, 0], 1, read, np.full(1000, 32)
            )
    code = """if True:
        import resource, sys, numpy as np
        from archlbr.profile.perfdata.spool import merge
        from archlbr.profile.perfdata.writer import Writer
        from tests.profile.examples import ATTR
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with Writer(sys.argv[1], ATTR) as profile:
            merge(sys.argv[2:], profile)
        print(profile.written, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    words = [sys.executable, "-c", code, tmp_path / "perf.data", tmp_path / "1", tmp_path / "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    written, kilobytes = map(int, done.stdout.split())
    assert written == 40_000
    assert kilobytes < 16_000
