"""llvm-profgen makes the same source profile of our file and of our text, and clang optimises with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from archlbr.profile import text
from archlbr.profile.perfdata.reader import Reader
from tests.foreign.conftest import PROGRAM, ROUNDS
from tests.foreign.tools import need, run, tools, versions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.foreign.conftest import Profiled

pytestmark = pytest.mark.foreign


def profile(profgen: Path, fresh: Profiled, *source: str) -> tuple[str, str]:
    """Return the profile's text, and what llvm-profgen said."""
    # Version 16 leaves this file behind and does not truncate it: its tail would be read as samples.
    for stale in fresh.folder.glob("*.script.tmp"):
        stale.unlink()
    out = fresh.folder / "hot.prof"
    done = run(
        [profgen, *source, f"--binary={fresh.program}", f"--output={out}", "--format=text", "--show-detailed-warning"],
        fresh.folder,
    )
    return out.read_text(), done.stdout + done.stderr


@pytest.mark.parametrize("profgen", versions("llvm-profgen"))
def test_no_range_leaves_its_function(fresh: Profiled, profgen: Path) -> None:
    need("perf")
    found, said = profile(profgen, fresh, f"--perfdata={fresh.data}")
    heads = set(re.findall(r"^(\w+):\d+:\d+$", found, re.MULTILINE))
    assert {"main", "classify", "fib", "order", "draw", "twice", "thrice", "compare"} <= heads
    assert "instruction boundary" not in said
    assert "unconditional jump" not in said
    # Only what no function covers: the linkage table and the start-up code.
    outside = re.findall(r"([\d.]+)%\(\d+/\d+\) of samples are from ranges that do not belong", said)
    assert [share for share in outside if float(share) >= 0.1] == []


@pytest.mark.parametrize("profgen", versions("llvm-profgen"))
def test_our_text_gives_the_same_profile_without_perf(fresh: Profiled, profgen: Path) -> None:
    need("perf")
    by_file, _ = profile(profgen, fresh, f"--perfdata={fresh.data}")
    with Reader(fresh.data) as opened:
        (fresh.folder / "hot.script").write_text("".join(text.script(opened)))
    by_text, _ = profile(profgen, fresh, f"--perfscript={fresh.folder / 'hot.script'}")
    assert by_text == by_file


@pytest.mark.parametrize("profgen", versions("llvm-profgen"))
def test_clang_optimises_with_it(fresh: Profiled, profgen: Path) -> None:
    need("perf")
    clang = next(iter(tools("clang")), None) or need("clang")
    profile(profgen, fresh, f"--perfdata={fresh.data}")
    optimised = fresh.folder / "hot.pgo"
    remarks = ["-Rpass=inline", "-Rpass-analysis=inline"]
    command = [clang, "-O2", "-g", "-fprofile-sample-use=hot.prof", *remarks, "-o", optimised, PROGRAM]
    done = run(command, fresh.folder)
    assert "profile" not in "".join(re.findall(r"(?:error|warning): .*", done.stderr))
    # Proof that the counts arrived: the entry counts of the profile are in the code that clang makes.
    module = run(
        [clang, "-O2", "-g", "-fprofile-sample-use=hot.prof", "-S", "-emit-llvm", "-o", "-", PROGRAM], fresh.folder
    )
    counts = [int(count) for count in re.findall(r'!"function_entry_count", i64 (\d+)', module.stdout)]
    assert max(counts) > 100
    assert run([optimised, ROUNDS], fresh.folder).stdout == fresh.trace.output
