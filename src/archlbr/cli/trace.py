"""`archlbr trace`: every taken branch of a program, exact."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.engines import Engine, choose, streamed
from archlbr.cli.progress import progress_line

if TYPE_CHECKING:
    from archlbr.profile.output import Output
    from archlbr.profile.trace import Summary


def trace(
    program: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGS]...", help="The program to run.")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write here; FILE.parquet for Parquet.")
    ] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="Which engine runs the program.")] = Engine.AUTO,
    stats: Annotated[bool, typer.Option("--stats", help="End with a line of numbers on stderr.")] = False,
) -> int:
    """Run a program and list every branch it takes: TID 0xFROM 0xTO KIND a line, in program order.

    Without -o the list goes to stdout once the program has ended, after the program's own output.
    """
    from archlbr.cli.stats import Stopwatch
    from archlbr.machine.supervise import find_guest
    from archlbr.profile.output import Output

    path = find_guest(program)
    chosen = choose(engine, path, program)
    watch = Stopwatch()
    out = Output(output) if output is not None else None
    with tempfile.TemporaryDirectory(prefix="archlbr-") as name:
        folder = Path(name)
        try:
            status = _run(chosen, path, program, folder)
            summary = write(folder, out)
        except BaseException:
            if out is not None:
                out.abort()
            raise
    if stats:
        watch.print(instructions=summary.instructions, branches=summary.branches, samples=0, engine=chosen)
    return status


def _run(engine: Engine, path: str, program: list[str], folder: Path) -> int:
    scratch, line = str(folder), progress_line()
    show = line.show if line is not None else None
    try:
        if engine is Engine.UNICORN:
            from archlbr.machine.supervise import run_guest
            from archlbr.recording.tracing import Tracer

            return run_guest(path, program, folder, lambda: Tracer(scratch), show)
        from archlbr.recording.streamed import StreamedTracer

        run = streamed(engine)
        return run(path, program, folder, lambda pid: StreamedTracer(scratch, pid), show)
    finally:
        if line is not None:
            line.wipe()


def write(folder: Path, out: Output | None) -> Summary:
    """Write the spools of a folder as a trace, to stdout without `out`; return what was retired."""
    from archlbr.profile.trace import write_parquet, write_text

    spools = sorted(folder.glob("*.trace"))
    if out is None:
        summary = write_text(spools, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return summary
    if out.name.endswith(".parquet"):
        table = folder / "table.parquet"
        summary = write_parquet(spools, table)
        out.copy(table)
    else:
        summary = write_text(spools, out.write)
    out.commit()
    return summary
