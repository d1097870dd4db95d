"""One program, built and traced once: what every foreign tool is then asked about."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.foreign.tools import need, run, tools
from tests.foreign.truth import Snapshots, Trace, read_trace, snapshots, write

PROGRAM = Path(__file__).parent / "programs" / "hot.c"
STEPPER = Path(__file__).parents[1] / "oracle" / "step.c"
ROUNDS = "60"
DEPTH = 32
# Odd and prime: a period that divides a loop's branch count would see the same branches again and again.
PERIOD = 11


class Profiled(NamedTuple):
    """A program, its exact trace, the snapshots taken of it, and the file made of them, in a folder of its own."""

    folder: Path
    program: Path
    trace: Trace
    shots: Snapshots
    data: Path


@pytest.fixture(scope="session")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native single-stepper."""
    folder = tmp_path_factory.mktemp("stepper")
    run([need("gcc"), "-O2", "-o", "step", STEPPER], folder)
    return folder / "step"


@pytest.fixture(scope="session", params=["pie", "no-pie"])
def profiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stepper: Path) -> Profiled:
    """The program of programs/hot.c, position independent and not, traced from main on."""
    folder = tmp_path_factory.mktemp(request.param)
    clang = next(iter(tools("clang")), None)
    compiler = str(clang) if clang else need("clang")
    flags = ["-pie", "-fPIE"] if request.param == "pie" else ["-no-pie", "-fno-pie"]
    # Relocations for BOLT, line tables that tell source positions apart for llvm-profgen.
    run(
        [compiler, "-O2", "-g", "-fdebug-info-for-profiling", *flags, "-Wl,-q", "-Wl,--build-id", "-o", "hot", PROGRAM],
        folder,
    )
    symbols = run([need("nm"), "hot"], folder).stdout.splitlines()
    start = next(line.split()[0] for line in symbols if line.endswith(" T main"))
    output = run([stepper, "-o", "trace.txt", "-b", f"0x{start}", "--", folder / "hot", ROUNDS], folder).stdout
    trace = read_trace(folder / "trace.txt", output)
    shots = snapshots(trace, DEPTH, PERIOD)
    data = folder / "perf.data"
    write(data, trace, shots, PERIOD)
    return Profiled(folder, folder / "hot", trace, shots, data)


@pytest.fixture
def fresh(profiled: Profiled, tmp_path: Path) -> Profiled:
    """The profiled program with its perf.data copied into the test's own folder: some tools leave files beside it."""
    data = tmp_path / "perf.data"
    shutil.copyfile(profiled.data, data)
    return profiled._replace(folder=tmp_path, data=data)
