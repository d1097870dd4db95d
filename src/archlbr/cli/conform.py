"""`archlbr conform`: ask a hypervisor's LBR surface the cases of the conformance table, and print what holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.conformance.case import Case
    from archlbr.conformance.run import Result
    from archlbr.conformance.target import Target
    from archlbr.profile.output import Output

VIOLATED = 1


class Form(StrEnum):
    """`--format`: how the results are printed."""

    TEXT = "text"
    TAP = "tap"
    JUNIT = "junit"


def conform(
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="model (the default), machine, kvm or recording:FILE; model:DESIGN; may be given more than once.",
        ),
    ] = None,
    expression: Annotated[
        str, typer.Option("-k", metavar="EXPR", help="Ask only these: names with and, or, not; row:N.")
    ] = "",
    form: Annotated[Form, typer.Option("--format", help="How to print the results.")] = Form.TEXT,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="TARGET", help="What this target lacks is a failure, not a skip."),
    ] = None,
    record: Annotated[
        str | None, typer.Option("--record", metavar="FILE", help="Keep the target's answers, for recording:FILE.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="List the chosen cases and what each requires; ask nothing.")
    ] = False,
) -> int:
    """Ask a target the conformance cases: what KVM and its guest may see of the LBRs, with the authority for each.

    The exit status is 1 when a case fails, or when none was asked.
    """
    from archlbr.conformance.cases.table import CASES
    from archlbr.conformance.run import Verdict, holds
    from archlbr.conformance.select import selection

    chooses = selection(expression)
    cases = [case for case in CASES if chooses(case)]
    if show:
        for case in cases:
            typer.echo(f"{case.name}\t{case.row or '-'}\t{case.requirement}\t{case.cite}")
        return 0 if cases else VIOLATED
    names = list(dict.fromkeys(targets or ["model"]))
    required = _required(require or [], names)
    if record is not None and len(names) != 1:
        raise InputError(f"--record keeps one target's answers, and there are {len(names)}; give one --target")
    results = list(_all(names, cases, required, record))
    typer.echo(_printed(form, results), nl=False)
    if holds(results):
        return 0
    if not any(result.verdict is Verdict.FAIL for result in results):
        why = "no case has such a name" if not cases else "each case was skipped"
        sys.stderr.write(f"archlbr: nothing was asked: {why}\n")
    return VIOLATED


def _required(required: list[str], names: list[str]) -> frozenset[str]:
    """Return the targets, as the command line names them, whose skips are failures."""
    chosen = {name for name in names if name in required or name.partition(":")[0] in required}
    for name in required:
        if not any(name in (one, one.partition(":")[0]) for one in chosen):
            raise InputError(f"--require {name}: it is not asked; add --target {name}")
    return frozenset(chosen)


def _all(names: list[str], cases: list[Case], required: frozenset[str], record: str | None) -> Iterator[Result]:
    from archlbr.conformance.run import run, strict
    from archlbr.conformance.targets.names import open_target
    from archlbr.conformance.targets.recording import Recorder

    for name in names:
        # The file is claimed before a long run, and appears when it is over.
        output = _output(record) if record is not None else None
        try:
            target: Target = open_target(name)
            try:
                asked = Recorder(target) if output is not None else target
                results = run(asked, _watched(cases, name))
                yield from strict(results) if name in required else results
            finally:
                target.close()
            if output is not None and isinstance(asked, Recorder):
                output.write(asked.document().encode())
                output.commit()
        except BaseException:
            if output is not None and not output.closed:
                output.abort()
            raise


def _output(name: str) -> Output:
    from archlbr.profile.output import Output

    try:
        return Output(name)
    except InputError as refusal:
        raise InputError(str(refusal).replace("with -o", "with --record")) from refusal


def _watched(cases: list[Case], name: str) -> Iterable[Case]:
    """Return the cases, behind a progress bar when a person looks on."""
    if not sys.stderr.isatty():
        return cases
    from rich.console import Console
    from rich.progress import track

    return track(cases, description=name, console=Console(stderr=True), transient=True)


def _printed(form: Form, results: list[Result]) -> str:
    match form:
        case Form.TEXT:
            from archlbr.conformance.output.text import text

            return text(results)
        case Form.TAP:
            from archlbr.conformance.output.tap import tap

            return tap(results)
        case Form.JUNIT:
            from archlbr.conformance.output.junit import junit

            return junit(results)
