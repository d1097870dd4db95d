"""Feed every parser inputs that a coverage-guided fuzzer makes up: a million in all.

    python -m campaigns.fuzz [--inputs N] [--seed N] [--write] [PARSER...]

Atheris (dependency group `campaigns`) instruments `archlbr` and pyelftools and mutates the seeds of `parsers.py`; half
of the inputs of a format with a checksum get theirs put right. Each parser runs in a process of its own, which
libFuzzer ends at the first exception but InputError, at an input that takes longer than SECONDS, and beyond MEGABYTES.
The input of a finding stays in build/fuzz/; its first byte is not the parser's: below 80H, the checksum is put right.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from campaigns.document import write_section

SECONDS, MEGABYTES, LONGEST = 20, 1024, 16384
INPUTS = 1_000_000
# How many of a thousand inputs each parser gets: more where one costs less.
SHARES = {
    "perf.data": 30,
    "vcpu-snapshot": 50,
    "machine-snapshot": 10,
    "elf-run": 100,
    "elf-names": 5,
    "replay-line": 200,
    "recording": 200,
    "cpuid-text": 180,
    "xsave-image": 50,
    "boot-image": 10,
    "words": 165,
}
FINDINGS = Path(__file__).resolve().parents[1] / "build" / "fuzz"
# What libFuzzer names the input of a finding; slow-unit- is none.
_ARTIFACT = re.compile(r"(crash|timeout|oom|leak)-")
_STAT = re.compile(r"^stat::(\w+): +(\d+)$", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)/")


def compiled() -> list[str]:
    """Return the modules that numba compiles, which it cannot when they are instrumented."""
    source = Path(__file__).resolve().parents[1] / "src"
    found = [path for path in sorted(source.rglob("*.py")) if "native" in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(source).with_suffix("").parts) for path in found]


def fuzz_one(name: str, runs: int, seed: int, corpus: Path) -> None:
    """Fuzz one parser; the process ends with it."""
    import atheris

    with atheris.instrument_imports(include=["archlbr", "elftools"], exclude=compiled()):
        from campaigns import parsers

    parser = parsers.PARSERS[name]
    for number, content in enumerate(parser.seeds()):
        (corpus / f"seed-{number}").write_bytes(bytes(1) + content)

    def one_input(content: bytes) -> None:
        # The first byte says whether the checksum is put right.
        parsers.feed(parser, content[1:], bool(content[:1] < b"\x80"))

    limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST}"]
    # libFuzzer counts the inputs of the corpus, and the empty one, among the runs.
    words = [f"-runs={runs}", f"-seed={seed}", *limits, "-print_final_stats=1", f"-artifact_prefix={corpus.parent}/"]
    atheris.Setup(["fuzz", *words, str(corpus)], one_input)
    atheris.Fuzz()


def keep(folder: Path, kept: Path) -> list[Path]:
    """Move the inputs of findings from a folder that goes to one that stays; return where they are then."""
    found = [path for path in sorted(folder.iterdir()) if _ARTIFACT.match(path.name)]
    if found:
        kept.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.move(path, kept / path.name)) for path in found]


def measure(name: str, runs: int, seed: int, kept: Path) -> tuple[list[str], bool]:
    """Fuzz a parser in a process of its own; return its row, and whether nothing was found."""
    corpus = kept / name / "corpus"
    corpus.mkdir(parents=True)
    command = [sys.executable, "-m", "campaigns.fuzz", "--child", str(corpus), "--inputs", str(runs)]
    begin = time.monotonic()
    done = subprocess.run(
        [*command, "--seed", str(seed), name], stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    seconds = time.monotonic() - begin
    stats = {key: int(value) for key, value in _STAT.findall(done.stderr)}
    covered = _COVERED.findall(done.stderr) or [("0", "0")]
    executed = stats.get("number_of_executed_units", 0)
    fine = done.returncode == 0 and executed >= runs
    if not fine:
        print("\n".join(line[:200] for line in done.stderr.splitlines()[-40:]), file=sys.stderr)
        for found in keep(corpus.parent, FINDINGS / name):
            print(f"the input is kept: {found}", file=sys.stderr)
    row = [name, f"{executed:,}", f"{seconds:.0f}", *covered[-1], str(stats.get("peak_rss_mb", 0))]
    return [*row, str(stats.get("slowest_unit_time_sec", 0)), "nothing" if fine else "SEE ABOVE"], fine


def main() -> None:
    """Fuzz the parsers that are named, all of them by default."""
    words = argparse.ArgumentParser(prog="python -m campaigns.fuzz")
    words.add_argument("parsers", nargs="*", metavar="PARSER", help=", ".join(SHARES))
    words.add_argument("--inputs", type=int, default=INPUTS, help="in all, or for the one parser that is named")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--write", action="store_true", help="into docs/reliability.md")
    words.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.child:
        fuzz_one(asked.parsers[0], asked.inputs, asked.seed, asked.child)
        return
    names = asked.parsers or list(SHARES)
    if unknown := set(names) - set(SHARES):
        sys.exit(f"no such parser: {' '.join(sorted(unknown))}; there are {' '.join(SHARES)}")
    share = sum(SHARES[name] for name in names)
    rows, fine = [], True
    with TemporaryDirectory(prefix="fuzz-") as folder:
        for name in names:
            row, found_nothing = measure(name, asked.inputs * SHARES[name] // share, asked.seed, Path(folder))
            rows.append(row)
            fine &= found_nothing
            print(" ".join(row), file=sys.stderr, flush=True)
    total = sum(int(row[1].replace(",", "")) for row in rows)
    head = ["parser", "inputs", "seconds", "edges", "corpus", "MiB at most", "slowest input, s", "found"]
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    lines = [
        f"`python -m campaigns.fuzz --inputs {asked.inputs} --seed {asked.seed}`, at nice {os.nice(0)}, Atheris "
        f"{version('atheris')}: {total:,} inputs. A finding is an exception other than InputError, an input that takes "
        f"longer than {SECONDS} s, or more than {MEGABYTES} MiB. `tests/fuzz` gives each parser some more with every "
        "run of the tests.",
        "",
        *table,
    ]
    print("\n".join(lines))
    if asked.write:
        write_section("Fuzzing", lines)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
