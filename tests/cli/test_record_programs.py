"""`archlbr record` runs what people run: the same output and exit status as natively, and a sound profile each time."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.recording import archlbr, record, run
from tests.guests.position import skip_where_python_lies


class Program(NamedTuple):
    """A command line with `{data}` for a file of text, `{block}` for ten megabytes, and what it gets on stdin."""

    name: str
    words: tuple[str, ...]
    stdin: bytes = b""


SQL = (
    b"create table t(a integer primary key, b text); "
    b"with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) "
    b"insert into t select i, hex(i * i) from n; "
    b"select count(*), sum(a), max(b) from t where a % 7 = 3; "
    b"select b, count(*) from t group by substr(b, 1, 2) limit 5;\n"
)
PERL = 'my %h; $h{$_ % 17} += $_ for 1 .. 5000; print join(",", map { "$_=$h{$_}" } sort { $a <=> $b } keys %h), "\\n"'
PIPELINE = 'for i in 1 2 3; do echo "line $i"; done | tr a-z A-Z | sort -r; f() { return 9; }; f || exit $?'
PYTHON = "print(sum(range(10**5)))"

PROGRAMS = [
    Program("ls", ("ls", "-l", "/usr")),
    Program("gzip", ("gzip", "-c", "{data}")),
    Program("bzip2", ("bzip2", "-c", "{data}")),
    Program("sort", ("sort", "{data}")),
    Program("sqlite3", ("sqlite3", ":memory:"), SQL),
    Program("perl", ("perl", "-e", PERL)),
    Program("bash", ("bash", "-c", PIPELINE)),
    Program("python3", ("/usr/bin/python3", "-c", PYTHON)),
    Program("xz", ("xz", "-T2", "-c", "--block-size=65536", "-1", "{data}")),
    Program("sha256sum", ("sha256sum", "{block}")),
    Program("cat", ("cat",), bytes(range(256)) * 300),
    Program("env", ("env",)),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    numbers = random.Random(1)
    words = ["branch", "record", "ring", "depth", "freeze", "filter", "stack", "call"]
    lines = [f"{numbers.randrange(10**6)} {' '.join(numbers.choices(words, k=6))}" for _ in range(6000)]
    (folder / "data").write_text("\n".join(lines) + "\n")
    (folder / "block").write_bytes(numbers.randbytes(10_000_000))
    return {name: os.fspath(folder / name) for name in ("data", "block")}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_recorded_program_behaves_as_it_does_alone(program: Program, inputs: dict[str, str], tmp_path: Path) -> None:
    found = shutil.which(program.words[0])
    if found is None:
        pytest.skip(f"{program.words[0]} is not installed")
    skip_where_python_lies(Path(found).resolve())
    words = [word.format(**inputs) if word.startswith("{") else word for word in program.words]
    natively = run(words, stdin=program.stdin)
    profile = tmp_path / "perf.data"
    recorded = record("-c", "10007", "-o", profile, "--", *words, stdin=program.stdin)
    assert recorded == natively
    validated = run(archlbr("validate", profile))
    assert (validated.status, validated.err) == (0, b""), validated.out
