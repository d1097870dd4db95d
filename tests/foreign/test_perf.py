"""perf reads our files: every entry, mapping, task and feature, as it reads its own."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.profile import text
from archlbr.profile.perfdata.attr import BRANCH_ANY, BRANCH_HW_INDEX, BRANCH_USER, branch_attr
from archlbr.profile.perfdata.features import About
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping, Samples
from tests.foreign.tools import need, run
from tests.foreign.truth import PID, build_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.foreign.conftest import Profiled

pytestmark = pytest.mark.foreign

PERF_TYPE = {
    "COND": "COND",
    "REL_JMP": "UNCOND",
    "IND_JMP": "IND",
    "REL_CALL": "CALL",
    "IND_CALL": "IND_CALL",
    "RET": "RET",
}


def test_script_prints_every_entry_of_the_trace_newest_first(profiled: Profiled) -> None:
    done = run([need("perf"), "script", "-i", profiled.data, "-F", "brstack"], profiled.folder)
    trace, kinds = profiled.trace.branches.tolist(), profiled.trace.kinds
    expected = []
    for newest, count in zip(profiled.shots.at.tolist(), profiled.shots.counts.tolist(), strict=True):
        words = []
        for number in range(newest, newest - count, -1):
            guess = "M" if number % 7 == 0 else "P"
            source, target = trace[number]
            words.append(f"{source:#x}/{target:#x}/{guess}/-/-/{number & 63}/{PERF_TYPE[kinds[number]]}")
        expected.append(words)
    assert [line.split() for line in done.stdout.splitlines()] == expected


@pytest.mark.parametrize("pid", [False, True], ids=["ip", "pid,ip"])
def test_our_text_is_what_perf_script_prints(profiled: Profiled, pid: bool) -> None:
    names = "pid,ip,brstack" if pid else "ip,brstack"
    done = run([need("perf"), "script", "-i", profiled.data, "-F", names, "--show-mmap-events"], profiled.folder)
    with Reader(profiled.data) as profile:
        assert "".join(text.script(profile, pid)) == done.stdout


def test_report_counts_every_branch_between_its_files(profiled: Profiled) -> None:
    names = "sample,dso_from,dso_to"
    command = [
        need("perf"),
        "report",
        "-b",
        "--stdio",
        "-i",
        profiled.data,
        "--sort",
        names[7:],
        "-F",
        names,
        "-t",
        "|",
    ]
    done = run(command, profiled.folder)
    rows = [re.split(r" *\|", line.strip()) for line in done.stdout.splitlines() if re.match(r" *\d+ *\|", line)]
    counts: Counter[tuple[str, str]] = Counter()
    for newest, count in zip(profiled.shots.at.tolist(), profiled.shots.counts.tolist(), strict=True):
        for source, target in profiled.trace.branches[newest + 1 - count : newest + 1].tolist():
            counts[file_at(profiled, source), file_at(profiled, target)] += 1
    assert {(source, target): int(count) for count, source, target in rows} == counts
    assert re.search(r"^ *COND: +\d+\.\d%$", done.stdout, re.MULTILINE), (
        "no table of branch types: TYPE_SAVE is missing"
    )


def file_at(profiled: Profiled, address: int) -> str:
    """Return the name of the file mapped at an address."""
    rows = profiled.trace.mappings
    return next(row.path.rsplit("/", 1)[-1] for row in rows if row.start <= address < row.start + row.length)


def test_buildid_list_names_each_mapped_file_once(profiled: Profiled) -> None:
    done = run([need("perf"), "buildid-list", "-i", profiled.data], profiled.folder)
    paths = {row.path for row in profiled.trace.mappings if row.build_id}
    assert sorted(done.stdout.splitlines()) == sorted(f"{build_id(path).hex()} {path}" for path in paths)


def test_script_shows_mappings_and_tasks(tmp_path: Path) -> None:
    with Writer(tmp_path / "perf.data", branch_attr("branches:u", 7)) as profile:
        profile.comm(7, 7, 0, "one")
        profile.mmap2(7, 7, 0, Mapping(0x401000, 0x2000, 0x1000, "/opt/a b", b"", 8, 1, 99, 3))
        profile.fork(9, 9, 7, 7, 0)
        profile.comm(9, 9, 0, "a-name-of-more-than-fifteen", exec=True)
        profile.exit(9, 9, 7, 7, 0)
    done = run(
        [need("perf"), "script", "-i", "perf.data", "--show-mmap-events", "--show-task-events", "--ns"], tmp_path
    )
    assert [line.split(maxsplit=2)[2] for line in done.stdout.splitlines()] == [
        "0.000000001: PERF_RECORD_COMM: one:7/7",
        "0.000001001: PERF_RECORD_MMAP2 7/7: [0x401000(0x2000) @ 0x1000 08:01 99 3]: r-xp /opt/a b",
        "0.000002001: PERF_RECORD_FORK(9:9):(7:7)",
        "0.000003001: PERF_RECORD_COMM exec: a-name-of-more-:9/9",
        "0.000004001: PERF_RECORD_EXIT(9:9):(7:7)",
    ]


def test_every_feature_is_shown(tmp_path: Path) -> None:
    about = About(
        ("archlbr", "record", "a b"), 16, "box", "6.1.0", "1.0", "x86_64", 4, 2, "A Processor", "GenuineIntel,6,143,8"
    )
    stacks = np.array([[[0x401010, 0x401000, 1 << 60]]], dtype=np.uint64)
    with Writer(tmp_path / "perf.data", branch_attr("branches:u", 101), about) as profile:
        for time in (2_000_000, 5_000_000):
            profile.samples(7, 7, np.array([time], np.uint64), stacks[:, 0, 0], 101, stacks, np.array([1]))
    shown = run([need("perf"), "report", "--header-only", "-i", "perf.data"], tmp_path).stdout
    for line in (
        "# hostname : box",
        "# os release : 6.1.0",
        "# perf version : 1.0",
        "# arch : x86_64",
        "# nrcpus online : 2",
        "# nrcpus avail : 4",
        "# cpudesc : A Processor",
        "# cpuid : GenuineIntel,6,143,8",
        "# cmdline : archlbr record a b ",
        "# contains samples with branch stack",
        "# time of first sample : 0.002000",
        "# time of last sample : 0.005000",
        "# cpu pmu capabilities: branches=16, max_precise=0, pmu_name=archlbr",
    ):
        assert line in shown.splitlines()
    listed = run([need("perf"), "evlist", "-v", "-i", "perf.data"], tmp_path).stdout
    for words in (
        "branches:u: size: 112, config: 0x4, { sample_period, sample_freq }: 101, ",
        "sample_type: IP|TID|TIME|PERIOD|BRANCH_STACK",
        "exclude_kernel: 1, exclude_hv: 1, mmap: 1, comm: 1, task: 1, sample_id_all: 1, mmap2: 1, comm_exec: 1",
        "branch_sample_type: USER|ANY|TYPE_SAVE",
    ):
        assert words in listed


def test_data_convert_keeps_every_sample(profiled: Profiled) -> None:
    out = profiled.folder / "perf.json"
    run([need("perf"), "data", "convert", "--force", "--to-json", out, "-i", profiled.data], profiled.folder)
    rows = json.loads(out.read_text())["samples"]
    assert [row["timestamp"] for row in rows] == ((profiled.shots.at + 1) * 5000).tolist()
    assert {(row["pid"], row["tid"], row["comm"]) for row in rows} == {(PID, PID, "hot")}


def test_a_hardware_index_is_written_where_it_is_promised(tmp_path: Path) -> None:
    stacks = np.array([[[0x401010, 0x401000, 1 << 60], [0x401020, 0x401008, 0]]], dtype=np.uint64)
    with Writer(
        tmp_path / "perf.data", branch_attr("branches:u", 7, BRANCH_USER | BRANCH_ANY | BRANCH_HW_INDEX)
    ) as profile:
        profile.comm(7, 7, 0, "one")
        profile.samples(7, 7, np.array([1], np.uint64), stacks[:, 0, 0], 7, stacks, np.array([2]))
    done = run([need("perf"), "script", "-i", "perf.data", "-F", "brstack"], tmp_path)
    assert done.stdout.split() == ["0x401010/0x401000/P/-/-/0/COND", "0x401020/0x401008/P/-/-/0/COND"]


def test_a_sample_of_the_kernel_is_the_kernel_s(tmp_path: Path) -> None:
    stacks = np.zeros((2, 1, 3), dtype=np.uint64)
    with Writer(tmp_path / "perf.data", branch_attr("branches", 7)) as profile:
        profile.comm(7, 7, 0, "one")
        ips = np.array([0x401000, 0xFFFFFFFF81000000], dtype=np.uint64)
        profile.samples(7, 7, np.array([1, 2], np.uint64), ips, 7, stacks, np.array([0, 0]))
    done = run([need("perf"), "report", "-D", "-i", "perf.data"], tmp_path)
    assert re.findall(r"PERF_RECORD_SAMPLE\(IP, (0x\d+)\): 7/7: (\w+)", done.stdout) == [
        ("0x2", "0x401000"),
        ("0x1", "0xffffffff81000000"),
    ]


def test_we_read_what_perf_itself_writes(profiled: Profiled, tmp_path: Path) -> None:
    """`perf inject -b` writes our file anew: other features, other attribute, build-ids as events."""
    run([need("perf"), "inject", "-b", "-i", profiled.data, "-o", tmp_path / "injected.data"], tmp_path)
    with Reader(profiled.data) as ours, Reader(tmp_path / "injected.data") as theirs:
        assert theirs.strings["hostname"] == ours.strings["hostname"]
        one, other = joined(ours.samples()), joined(theirs.samples())
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert ours.sideband() == theirs.sideband()


def joined(batches: Iterable[Samples]) -> dict[str, NDArray[np.generic]]:
    """Return all batches as one: each field end to end."""
    rows = list(batches)
    names = ("pid", "tid", "time", "ip", "period", "cpumode", "entries", "counts")
    return {name: np.concatenate([getattr(row, name) for row in rows]) for name in names}


def test_we_read_what_perf_records_itself(tmp_path: Path) -> None:
    perf = need("perf")
    command = [perf, "record", "-e", "cpu-clock:u", "-c", "200000", "-g", "-o", "perf.data", "--"]
    recorded = run_quietly([*command, "python3", "-c", "print(sum(range(2 * 10**6)))"], tmp_path)
    if recorded:
        pytest.skip(f"perf cannot record cpu-clock here: {recorded}")
    lines = run(
        [perf, "script", "-i", "perf.data", "-G", "-F", "pid,tid,time,period,ip", "--ns"], tmp_path
    ).stdout.splitlines()
    rows = []
    for line in lines:
        pid, tid, seconds, nanoseconds, period, ip = re.fullmatch(
            r" *(\d+)/(\d+) +(\d+)\.(\d+): +(\d+) +([0-9a-f]+) *", line
        ).groups()
        rows.append((int(seconds) * 10**9 + int(nanoseconds), int(pid), int(tid), int(period), int(ip, 16)))
    ours = []
    with Reader(tmp_path / "perf.data") as profile:
        for batch in profile.samples():
            columns = (batch.time, batch.pid, batch.tid, batch.period, batch.ip)
            ours.extend(zip(*(column.tolist() for column in columns), strict=True))
        paths = {event.mapping.path for event in profile.sideband() if hasattr(event, "mapping")}
    assert len(rows) > 10
    assert sorted(ours) == sorted(rows)
    assert any(re.search(r"/libc\.so\.6|/libc-", path) for path in paths)


def run_quietly(command: list[str], cwd: Path) -> str:
    """Return nothing when the program succeeds, else the last line it said."""
    try:
        run(command, cwd)
    except AssertionError as error:
        return str(error).splitlines()[-1]
    return ""
