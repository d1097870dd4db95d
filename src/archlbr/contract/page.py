"""The verdict table as one self-contained page: a violated cell opens its interleaving as a sequence diagram.

`cli.check` prints it. No script is needed: cells are links, and the diagram that a link leads to is shown, so that the
keyboard alone is enough; colours follow the reader's light or dark setting.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from archlbr.check import replay
from archlbr.contract.lanes import LANES, Step, model_of, steps
from archlbr.contract.properties import BY_NAME
from archlbr.contract.table import VIOLATED
from archlbr.contract.verdicts import WITNESSES

if TYPE_CHECKING:
    from archlbr.contract.table import Cell, Table

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #888; --bad: #b00020; --good: #1b6e2c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --line: #888; --bad: #ff8a80; --good: #81c995; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem; }
table { border-collapse: collapse; } th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left; }
a.violated { color: var(--bad); } .holds { color: var(--good); }
a:focus-visible { outline: 3px solid currentColor; outline-offset: 2px; }
section.diagram { display: none; border: 1px solid var(--line); padding: 1rem; margin-top: 1rem; }
section.diagram:target { display: block; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg line { stroke: var(--line); }
svg circle { fill: var(--bad); } code { overflow-wrap: anywhere; }
"""
LANE_WIDTH, ROW_HEIGHT, TOP = 90, 26, 40


def as_html(table: Table) -> str:
    """Return the page."""
    names = list(table.cells)
    columns = list(next(iter(table.cells.values()), {}))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows, diagrams = [], []
    for column in columns:
        says = BY_NAME[column].says if column in BY_NAME else WITNESSES.get(column, "")
        cells = []
        for name in names:
            cell = table.cells[name][column]
            cells.append(f"<td>{_cell(name, column, cell)}</td>")
            if cell.replay is not None:
                diagrams.append(_diagram(name, column, cell))
        rows.append(f'<tr><th scope="row" title="{escape(says)}">{escape(column)}</th>{"".join(cells)}</tr>')
    word = "each exploration is complete" if table.complete else "INCOMPLETE: the search was cut short"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>LBR contract: verdicts</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style><body><h1>Who may use the LBRs when: verdicts</h1>"
        f"<p>{word}. A verdict says something about the named scenarios and no more; what is said of a merged kernel"
        " is this model's prediction until it is confirmed on hardware.</p>"
        f'<table><thead><tr><th scope="col">property</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f"{''.join(diagrams)}</body></html>"
    )


def anchor(design: str, claim: str) -> str:
    """Return the name of a violated cell's diagram."""
    return f"{design}-{claim}".replace("+", "-").replace(".", "-").replace(" ", "-")


def _cell(design: str, claim: str, cell: Cell) -> str:
    if cell.verdict == VIOLATED and cell.replay is not None:
        note = f" {', '.join(cell.names)}" if cell.names else ""
        return f'<a class="violated" href="#{anchor(design, claim)}">violated</a>{escape(note)}'
    kind = "holds" if cell.verdict == "holds" else "other"
    return f'<span class="{kind}">{escape(cell.verdict)}</span>'


def _diagram(design: str, claim: str, cell: Cell) -> str:
    assert cell.replay is not None
    run = replay.run(model_of(f"{design}/{cell.scenario}"), replay.decode(cell.replay))
    title = f"{design} violates {claim}: {BY_NAME[claim].says}"
    return (
        f'<section class="diagram" id="{anchor(design, claim)}" tabindex="-1"><h2>{escape(title)}</h2>'
        f"<p>Scenario {escape(cell.scenario or '')}, {cell.depth} steps.</p>"
        f"{_svg(steps(run.states, run.actions), title)}<p><code>archlbr replay {escape(cell.replay)}</code></p>"
        '<p><a href="#">Back to the table</a></p></section>'
    )


def _svg(run: list[Step], title: str) -> str:
    cpus = sorted({step.cpu for step in run}) or [0]
    lanes = [(cpu, lane) for cpu in cpus for lane in LANES]
    places = {key: 20 + LANE_WIDTH * (number + 0.5) for number, key in enumerate(lanes)}
    width, height = 20 + LANE_WIDTH * len(lanes) + 620, TOP + ROW_HEIGHT * (len(run) + 1)
    parts = [f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    parts.append(f"<title>{escape(title)}</title>")
    for (cpu, lane), x in places.items():
        parts.append(f'<text x="{x}" y="20" text-anchor="middle">p{cpu} {lane}</text>')
        parts.append(f'<line x1="{x}" y1="28" x2="{x}" y2="{height}"/>')
    left = 30 + LANE_WIDTH * len(lanes)
    for step in run:
        y = TOP + ROW_HEIGHT * step.number - 8
        broken = f" - breaks {', '.join(step.broken)}" if step.broken else ""
        parts.append(f'<circle cx="{places[step.cpu, step.lane]}" cy="{y}" r="5"/>')
        parts.append(
            f'<text x="{left}" y="{y + 4}">{step.number}. {escape(step.words)} [{step.registers}]{broken}</text>'
        )
    return "".join(parts) + "</svg>"
