"""`archlbr record`: run a program with its LBRs on and write its branch profile."""

from __future__ import annotations

import os
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.engines import Engine, choose, streamed
from archlbr.cli.progress import ProgressLine, progress_line
from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.profile.output import Output
    from archlbr.profile.perfdata.attr import Attr
    from archlbr.profile.perfdata.features import About
    from archlbr.profile.validate import Verdict
    from archlbr.recording.events import Event
    from archlbr.recording.streamed import StreamedSampler

# A prime, so that no loop's own count divides it and hides the same branches in every sample.
PERIOD = 10007
_PERF_TYPE_RAW = 4  # perf_event.h


class Form(StrEnum):
    """`--format`: what the profile is written as."""

    PERF_DATA = "perf.data"
    SCRIPT = "script"
    PREAGG = "preagg"


class Counted(StrEnum):
    """`-e`: what the period counts."""

    BRANCHES = "branches"
    INSTRUCTIONS = "instructions"


_DEFAULT_NAME = {Form.PERF_DATA: "perf.data", Form.SCRIPT: "perf.script", Form.PREAGG: "perf.preagg"}


def record(
    program: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGS]...", help="The program to run.")],
    branch_filter: Annotated[
        str, typer.Option("-j", "-b", "--branch-filter", metavar="FILTER", help="Which branches, as perf record -j.")
    ] = "any",
    period: Annotated[int, typer.Option("-c", "--count", metavar="PERIOD", help="Events a sample.")] = PERIOD,
    jitter: Annotated[
        int,
        typer.Option("--period-jitter", metavar="N", min=0, help="Draw each period from N + 1 numbers around PERIOD."),
    ] = 0,
    event: Annotated[Counted, typer.Option("-e", "--event", help="What the period counts.")] = Counted.BRANCHES,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write here (perf.data).")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.PERF_DATA,
    engine: Annotated[Engine, typer.Option("--engine", help="Which engine runs the program.")] = Engine.AUTO,
    stats: Annotated[bool, typer.Option("--stats", help="End with a line of numbers on stderr.")] = False,
) -> int:
    """Run a program on a processor with Architectural LBRs and write a profile of its branches.

    The program's output and exit status pass through. `branches` counts taken branches, `instructions` retired
    ones; each PERIOD of them a sample of the branch stack is taken, of the program and all that it starts.
    """
    from archlbr.cli.stats import Stopwatch
    from archlbr.machine.supervise import find_guest
    from archlbr.profile.output import Output

    attr, counter = _event(branch_filter, event, period, jitter)
    path = find_guest(program)
    chosen = choose(engine, path, program)
    watch = Stopwatch()
    name = output if output is not None else _DEFAULT_NAME[form]
    # Made first: what cannot be written is said before the program runs.
    out = Output(name)
    with tempfile.TemporaryDirectory(prefix="archlbr-") as scratch:
        folder = Path(scratch)
        try:
            line = progress_line(period, event is Counted.INSTRUCTIONS)
            status = _run(chosen, path, program, folder, attr, counter, line)
            data = folder / "perf.data"
            samples = _merge(folder, data, attr)
            verdict = _check(data)
            _write(data, form, path, out)
        except BaseException:
            out.abort()
            raise
        instructions, branches, detours = _totals(folder)
    size = os.stat(out.path).st_size
    print(f"[ archlbr record: wrote {size / 1e6:.3f} MB {name} ({samples} samples) ]", file=sys.stderr)
    if not verdict.holds:
        broken = verdict.backwards + verdict.out_of_range + verdict.mismatched
        # perf drops the kernel's own entries from a user profile: what a signal interrupted and its handler then meet.
        cause = f"; {detours} signal handlers were entered or left" if detours else ""
        print(
            f"archlbr: {broken} of {verdict.pairs} stretches between branches are no straight line{cause}; "
            f"archlbr validate {name} tells more",
            file=sys.stderr,
        )
    if stats:
        watch.print(instructions=instructions, branches=branches, samples=samples, engine=chosen)
    return status


def _run(
    engine: Engine,
    path: str,
    program: list[str],
    folder: Path,
    attr: Attr,
    counter: Event,
    line: ProgressLine | None,
) -> int:
    scratch, show = str(folder), line.show if line is not None else None
    try:
        if engine is Engine.UNICORN:
            from archlbr.machine.supervise import run_guest
            from archlbr.recording.sampling import Sampler

            return run_guest(path, program, folder, lambda: Sampler(scratch, attr, counter), show)
        from archlbr.recording.events import period_alone

        def make_recorder(pid: int) -> StreamedSampler:
            from archlbr.recording.streamed import StreamedSampler  # loaded while the program runs

            return StreamedSampler(scratch, attr, counter, pid)

        run = streamed(engine, period_alone(counter))
        return run(path, program, folder, make_recorder, show)
    finally:
        if line is not None:
            line.wipe()


def _event(branch_filter: str, event: Counted, period: int, jitter: int) -> tuple[Attr, Event]:
    from archlbr.arch import msrs
    from archlbr.perf.filters import SampleBranch, parse_filter
    from archlbr.profile.perfdata.attr import branch_attr
    from archlbr.recording.events import RETIRED, TAKEN, Event

    wanted = parse_filter(branch_filter)
    if jitter and jitter // 2 >= period:
        raise InputError(f"a jitter of {jitter} around a period of {period} reaches 0: take at most {2 * period - 1}")
    if wanted.sample_type & SampleBranch.KERNEL:
        raise InputError("a user program's kernel is not recorded here: leave k out of the filter")
    if event is Counted.BRANCHES:
        attr = branch_attr("branches", period, wanted.sample_type)
        # BR_INST_RETIRED.NEAR_TAKEN: event C4H, umask 20H (Intel's event list for Golden Cove).
        attr = attr._replace(name="br_inst_retired.near_taken:u", type=_PERF_TYPE_RAW, config=0x20C4)
        return attr, Event(TAKEN, period, wanted.lbr_ctl | msrs.CTL_LBREN, jitter)
    attr = branch_attr("instructions:u", period, wanted.sample_type)
    return attr, Event(RETIRED, period, wanted.lbr_ctl | msrs.CTL_LBREN, jitter)


def _about() -> About:
    from archlbr import __version__
    from archlbr.profile.perfdata.features import About

    host = os.uname()
    return About(
        command_line=tuple(sys.argv),
        depth=32,
        hostname=host.nodename,
        osrelease=host.release,
        version=f"archlbr {__version__}",
        cpudesc="archlbr model of a Sapphire Rapids",
        cpuid="GenuineIntel,6,143,8",
    )


def _merge(folder: Path, data: Path, attr: Attr) -> int:
    from archlbr.profile.perfdata.spool import merge
    from archlbr.profile.perfdata.writer import Writer

    with Writer(data, attr, _about()) as writer:
        merge(sorted(folder.glob("*.spool")), writer)
        return writer.written


def _check(data: Path) -> Verdict:
    from archlbr.profile.perfdata.reader import Reader
    from archlbr.profile.validate import validate

    with Reader(data) as reader:
        return validate(reader, disassemble=False)


def _write(data: Path, form: Form, program: str, out: Output) -> None:
    from archlbr.profile.perfdata.reader import Reader
    from archlbr.profile.text import preaggregated, script

    if form is Form.PERF_DATA:
        out.copy(data)
    else:
        with Reader(data) as reader:
            own = os.path.realpath(program)
            for line in script(reader) if form is Form.SCRIPT else preaggregated(reader, own):
                out.write(line.encode(errors="surrogateescape"))
    out.commit()


def _totals(folder: Path) -> tuple[int, int, int]:
    import numpy as np

    rows = [np.fromfile(path, np.uint64) for path in folder.glob("*.totals")]
    instructions, branches, detours = (sum(int(row[column]) for row in rows) for column in range(3))
    return instructions, branches, detours
