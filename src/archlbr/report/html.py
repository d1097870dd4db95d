"""A profile as one HTML page that needs nothing else: tables, call tree, instructions and graphs of hot functions.

Fed by `summary`, `code`, `flow` and `stacks`; `page.html`, `page.css` and `page.js` beside it are its looks. No address
of the outside stands in it, and its policy forbids loading any. Ours.
"""

from __future__ import annotations

import shlex
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jinja2

from archlbr import __version__
from archlbr.report.code import FunctionCode, read_code, taken_by_function
from archlbr.report.flow import HEIGHT, WIDTH, Picture, lay_out, stroke
from archlbr.report.stacks import call_tree, is_call_stack, read_stacks
from archlbr.report.summary import Heat, summarize

if TYPE_CHECKING:
    from archlbr.report.counts import Counts
    from archlbr.report.names import Names
    from archlbr.report.stacks import Node, Stacks

# Functions whose instructions are on the page.
_FUNCTIONS = 12
# A function below this share of all branches has no place there.
_SMALLEST = 0.002


class Shown(NamedTuple):
    """A function on the page. key: its anchor. hottest: the count of the hottest instruction and edge."""

    key: str
    code: FunctionCode
    picture: Picture
    hottest: int


def page(file: str, counts: Counts, names: Names, limit: int) -> str:
    """Return the page."""
    summary = summarize(counts, names, limit)
    stacks, tree = _call_tree(file)
    shown = _functions(counts, names)
    anchors = {row.code.place: row.key for row in shown}
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=Path(file).name,
            command=shlex.join(summary.command_line),
            version=__version__,
            summary=summary,
            stacks=stacks,
            tree=tree,
            shown=shown,
            anchors=anchors,
            box=(WIDTH, HEIGHT),
        )
    )


def _call_tree(file: str) -> tuple[Stacks | None, tuple[Node, ...]]:
    if not is_call_stack(file):
        return None, ()
    stacks = read_stacks(file)
    return stacks, call_tree(stacks)


def _functions(counts: Counts, names: Names) -> list[Shown]:
    totals = taken_by_function(counts, names)
    hot = [key for key in totals if totals[key] >= _SMALLEST * counts.taken]
    order = sorted(hot, key=lambda key: (-totals[key], key))[:_FUNCTIONS]
    shown = []
    for number, key in enumerate(order):
        code = read_code(counts, names, *key)
        if code is not None:
            hottest = max([block.ran for block in code.blocks] + [flow.times for flow in code.flows])
            shown.append(Shown(f"f{number}", code, lay_out(code), hottest))
    return shown


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters.update(mispredicted=_mispredicted, cycles=_cycles, many=_many)
    made.globals["stroke"] = stroke
    return made


def _mispredicted(heat: Heat) -> float:
    return round(100 * heat.mispredicted / heat.taken, 1)


def _cycles(heat: Heat) -> str:
    return f"{heat.mean_cycles:.1f}" if heat.mean_cycles is not None else ""


def _many(count: int) -> str:
    return f"{count:,}"
