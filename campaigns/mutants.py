"""Change one thing at a time in `lbr/` and `vpmu/`, and see whether a test notices.

    python -m campaigns.mutants [--sample N] [--seed N] [--folder DIR] [--write]

mutmut (dependency group `campaigns`) makes every mutant of the functions there. A sample drawn with the seed runs under
the tests of these rooms, each mutant under those that reach its function. The compiled twin in `lbr/compiled/` is not
mutated: numba compiles nothing that mutmut has wrapped; `tests/properties` holds it equal to the pure step. Survivors
are printed; `docs/reliability.md` says which of them change nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

from campaigns.document import write_section

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("lbr", "vpmu")
SAMPLE = 1200
COPIED = ("src", "tests", "docs", "bench", "campaigns", "README.md", "CHANGELOG.md", "Makefile")
TESTS = ("tests/lbr", "tests/vpmu", "tests/contract/test_repairs.py")
# A process of its own would not see the mutant; the invariants are held by faster tests, and take most of the time.
LEFT_OUT = ("tests/lbr/test_native_call.py", "tests/vpmu/test_invariants.py")
# What a survivor runs under once more, in a process of its own: mutmut chooses a mutant after the import, when the
# tables of registers have been built of the functions as they are.
AGAIN = ("tests/lbr", "tests/vpmu")
# The smallest module: its run generates the mutants of all.
FIRST = "archlbr.lbr.tagged.*"
KILLED, TIMED_OUT = {1, 3}, {24, 36, 152, 255}
# mutmut starts anew for so many, so that what is done can be seen.
CHUNK = 500
CONFIGURATION = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/archlbr/lbr/*", "src/archlbr/vpmu/*"]
do_not_mutate = ["src/archlbr/lbr/compiled/*"]
pytest_add_cli_args_test_selection = {list(TESTS)}
pytest_add_cli_args = ["-x", "-q", "-p", "no:cacheprovider", {", ".join(f'"--ignore={name}"' for name in LEFT_OUT)}]
also_copy = {[name for name in COPIED if name not in ("src", "tests")]}
"""


def run_mutmut(folder: Path, *names: str) -> None:
    """Run mutmut on the mutants that are named; SystemExit when it fails."""
    command = [str(Path(sys.executable).parent / "mutmut"), "run", "--max-children", "1", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        sys.exit(f"mutmut failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def results(folder: Path) -> dict[str, int | None]:
    """Return each mutant's exit code, None where it has not run."""
    found: dict[str, int | None] = {}
    for path in sorted(folder.glob("mutants/src/archlbr/**/*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def survives(folder: Path, name: str) -> bool:
    """Run AGAIN with a mutant that is there from the first import; return whether all passes."""
    mutants = folder / "mutants"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *AGAIN]
    command += [f"--ignore={path}" for path in LEFT_OUT]
    environment = {**os.environ, "MUTANT_UNDER_TEST": name, "PYTHONPATH": f"{mutants / 'src'}:{mutants}"}
    done = subprocess.run(command, cwd=mutants, env=environment, capture_output=True, check=False, timeout=600)
    return done.returncode == 0


def room(name: str) -> str:
    """Return the room of a mutant: archlbr.lbr.state.x_f__mutmut_1 is of lbr."""
    return name.split(".")[1]


def interval(killed: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, in percent."""
    z = 1.959964
    share, square = killed / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return 100 * (middle - half), 100 * (middle + half)


def judge(chosen: list[str], codes: dict[str, int | None]) -> list[list[str]]:
    """Return the rows of the table."""
    rows = []
    for name in (*ROOMS, "both"):
        mine = [mutant for mutant in chosen if name in (room(mutant), "both")]
        kinds: Counter[str] = Counter()
        for mutant in mine:
            code = codes[mutant]
            kind = "killed" if code in KILLED else "timed out" if code in TIMED_OUT else "survived"
            kinds[kind] += 1
        killed, count = kinds["killed"] + kinds["timed out"], len(mine)
        if count:
            low, high = interval(killed, count)
            figures = [str(count), str(kinds["killed"]), str(kinds["timed out"]), str(kinds["survived"])]
            rows.append([name, *figures, f"{100 * killed / count:.1f} %", f"{low:.1f} % to {high:.1f} %"])
    return rows


def main() -> None:
    """Draw, run, print the section, and with --write put it into the document."""
    words = argparse.ArgumentParser(prog="python -m campaigns.mutants")
    words.add_argument("--sample", type=int, default=SAMPLE, help="how many mutants; 0: all")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--folder", type=Path, help="work here, and take what has run here before as it is")
    words.add_argument("--write", action="store_true", help="into docs/reliability.md")
    asked = words.parse_args()
    folder = asked.folder or Path(mkdtemp(prefix="mutants-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + CONFIGURATION)
    run_mutmut(folder, FIRST)
    names = sorted(name for name in results(folder) if room(name) in ROOMS)
    draw = random.Random(asked.seed)
    chosen = sorted(draw.sample(names, min(asked.sample, len(names)))) if asked.sample else names
    for at in range(0, len(chosen), CHUNK):
        run_mutmut(folder, *chosen[at : at + CHUNK])
        print(f"{min(at + CHUNK, len(chosen))} of {len(chosen)}", file=sys.stderr, flush=True)
    codes = results(folder)
    survivors = [name for name in chosen if codes[name] not in KILLED | TIMED_OUT]
    for name in survivors:
        if not survives(folder, name):
            codes[name] = next(iter(KILLED))
    survivors = [name for name in survivors if codes[name] not in KILLED]
    rows = judge(chosen, codes)
    head = ["room", "mutants", "killed", "timed out", "survived", "killed or timed out", "95 % interval"]
    sample = "All of them ran" if len(chosen) == len(names) else f"A sample of {len(chosen)}, drawn with the seed, ran"
    lines = [
        f"`python -m campaigns.mutants --sample {asked.sample} --seed {asked.seed}`, at nice {os.nice(0)}, mutmut "
        f"{version('mutmut')}, {len(names)} mutants in all. {sample} under `{' '.join(TESTS)}`, and what "
        f"survived once more in a process of its own under `{' '.join(AGAIN)}`.",
        "",
        *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)),
    ]
    print("\n".join([*lines, "", "survivors:", *survivors]))
    print(f"look at one with: cd {folder} && mutmut show NAME", file=sys.stderr)
    if asked.write:
        write_section("Mutants", lines)


if __name__ == "__main__":
    main()
