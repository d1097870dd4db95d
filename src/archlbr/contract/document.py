"""The contract as reStructuredText, in the shape of the kernel's Documentation/virt/kvm/x86, from the model.

`cli.contract` prints it. Each verdict in it is taken from an exploration; `answers` holds the words, `page` is the same
table for a browser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.check import replay
from archlbr.contract import costs
from archlbr.contract.answers import ANSWERS, CONTEXTS, GAPS, TO_THE_GUEST, TO_THE_HOST
from archlbr.contract.contention import ROWS, broken
from archlbr.contract.designs import DESIGNS
from archlbr.contract.interleavings import NAMED
from archlbr.contract.lanes import as_text, model_of, steps
from archlbr.contract.properties import BY_NAME, CLAIMS
from archlbr.contract.scenarios import SCENARIOS
from archlbr.contract.table import VIOLATED
from archlbr.vpmu.designs.sharing import VLBR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.contract.table import Table

OWNERS = (
    ("nobody", "in transit, or nothing in them that anybody may read; recording is off"),
    ("the host", "perf has an event that wants them; recording as perf's view of the enable bit says"),
    ("a vCPU", "its records are in them; recording in the guest as its own enable bit says, and off in the host"),
)


def as_rst(table: Table) -> str:
    """Return the document."""
    lines = [".. SPDX-License-Identifier: GPL-2.0", "", *heading("KVM, perf and the LBRs", "=", over=True)]
    lines += [
        "Who may use the Last Branch Records when. Every verdict below is the outcome of a complete exploration of a",
        "model over named scenarios, and says nothing beyond them. What is said of a merged kernel is the model's",
        "prediction until it is confirmed on hardware.",
        "",
    ]
    lines += [*heading("States and owners"), "Under ``archlbr`` each pCPU's LBRs have one owner:", ""]
    lines += grid(("owner", "means"), OWNERS)
    lines += heading("Contexts: may perf take the LBRs here?")
    lines += grid(("context", "vLBR event", "archlbr"), [tuple(context) for context in CONTEXTS])
    lines += heading("The three questions")
    for question, answers in ANSWERS:
        lines += heading(question, "~")
        for answer in answers:
            shown = ", ".join(
                f"{check.claim} is {'violated' if check.broken else 'kept'} in ``{check.scenario}``"
                for check in answer.checks
            )
            lines += [f"``{answer.design}``", f"  {answer.says} ({shown}: ``archlbr check {answer.design}``)", ""]
    lines += heading("What is promised")
    for title, names in (("To the guest", TO_THE_GUEST), ("To the host", TO_THE_HOST)):
        lines += heading(title, "~")
        lines += grid(("property", "says"), [(name, BY_NAME[name].says) for name in names])
    lines += heading("Verdicts")
    designs = list(table.cells)
    rows = [(claim.name, *(table.cells[design][claim.name].verdict for design in designs)) for claim in CLAIMS]
    lines += grid(("property", *designs), rows)
    lines += heading("The contention rows of 2023")
    legacy = [design for design in DESIGNS.values() if design.family == VLBR]
    verdicts = [[broken(design, row) for design in legacy] for row in ROWS]
    lines += grid(
        ("says", "scenario", *(design.name for design in legacy)),
        [
            (row.says, row.scenario, *("holds" if path is None else f"broken in {len(path)} steps" for path in found))
            for row, found in zip(ROWS, verdicts, strict=True)
        ],
    )
    lines += heading("Interleavings")
    lines += ["``found`` is by search, as a shortest path; the others do not exist under the bounds.", ""]
    lines += grid(
        ("name", "design", "breaks", "scenario", "says"),
        [
            (named.name, named.design, named.claim if named.found else "not found", named.scenario, named.says)
            for named in NAMED
        ],
    )
    lines += heading("What it costs")
    lines += [
        f"Accesses to LBR registers with {costs.DEPTH} records, counted while the model's step ran. In brackets",
        f"cycles, assumed and not measured: {costs.CYCLES[0]} an MSR access, {costs.CYCLES[2]} an XSAVES or XRSTORS.",
        "",
    ]
    head, *rows = costs.table()
    lines += grid(head, rows)
    lines += _violations(table)
    lines += heading("Known gaps")
    lines += [f"- {gap}" for gap in GAPS]
    lines += ["", *heading("Scenarios")]
    lines += grid(("scenario", "says"), [(scenario.name, scenario.says) for scenario in SCENARIOS])
    return "\n".join(lines).rstrip() + "\n"


def _violations(table: Table) -> list[str]:
    lines = heading("What breaks, step by step")
    for design, cells in table.cells.items():
        for name, cell in cells.items():
            if cell.verdict != VIOLATED or cell.replay is None:
                continue
            run = replay.run(model_of(f"{design}/{cell.scenario}"), replay.decode(cell.replay))
            lines += heading(f"{design}: {name}", "~")
            lines += [f"{BY_NAME[name].says}; broken in ``{cell.scenario}`` in {cell.depth} steps::", ""]
            loop = None if cell.loop is None else cell.depth
            lines += [f"  {line}".rstrip() for line in as_text(steps(run.states, run.actions), loop)]
            lines += [f"    archlbr replay {cell.replay}", ""]
    return lines


def heading(title: str, mark: str = "-", *, over: bool = False) -> list[str]:
    """Return a heading."""
    line = mark * len(title)
    return [line, title, line, ""] if over else [title, line, ""]


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a simple table; its last column may be as long as it likes, the others set their width."""
    cells = [tuple(head), *(tuple(row) for row in rows)]
    if len(head) > 2 and max(len(cell) for row in cells for cell in row) > 40:
        return listed(cells)
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    body = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [rule, body[0], rule, *body[1:], rule, ""]


def listed(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return a list table, for long texts in more than one column."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in cells:
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(row)]
    return [*lines, ""]
