"""The graph of a function's basic blocks, laid out and drawn as SVG.

Fed by `code`, placed into the page by `html`. Layers from top to bottom by the longest way from the entry, branches to
earlier addresses at the right side (Sugiyama's layering, with address order for the acyclic part). Ours.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.report.code import Block, Flow, FunctionCode

# Blocks beyond this many are left out, the coldest first: a larger graph says less.
LARGEST = 60
WIDTH, HEIGHT, GAP_X, GAP_Y, THREAD = 168, 44, 26, 46, 10
_MARGIN = 14
_SWEEPS = 4


class Box(NamedTuple):
    """A block of the picture: its number in the function and its upper left corner."""

    block: int
    x: float
    y: float


class Curve(NamedTuple):
    """An edge of the picture. path: SVG path data. x, y: where its count stands. back: to an earlier address."""

    flow: Flow
    path: str
    x: float
    y: float
    back: bool


class Picture(NamedTuple):
    """A laid out graph, in SVG's own units."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]
    left_out: int


class _Node(NamedTuple):
    block: int  # -1: an edge passes through
    layer: int


def lay_out(code: FunctionCode) -> Picture:
    """Return where each block and edge stands; blocks that never ran stay when there is room."""
    shown = _shown(code.blocks)
    flows = [flow for flow in code.flows if flow.source in shown and flow.target in shown]
    forward = [flow for flow in flows if flow.target > flow.source]
    layer = dict.fromkeys(sorted(shown), 0)
    for flow in sorted(forward, key=lambda flow: flow.target):
        layer[flow.target] = max(layer[flow.target], layer[flow.source] + 1)
    nodes, routes = _thread(layer, forward)
    rows = _order(nodes, routes)
    centre, right = _place(rows, nodes)
    top: dict[int, float] = {index: _MARGIN + node.layer * (HEIGHT + GAP_Y) for index, node in enumerate(nodes)}
    at = {node.block: index for index, node in enumerate(nodes) if node.block >= 0}
    boxes = tuple(Box(block, centre[at[block]] - WIDTH / 2, top[at[block]]) for block in sorted(shown))
    curves = [_down(flow, route, centre, top) for flow, route in zip(forward, routes, strict=True)]
    back = [flow for flow in flows if flow.target <= flow.source]
    for lane, flow in enumerate(sorted(back, key=lambda flow: flow.source - flow.target)):
        curves.append(_up(flow, at, centre, top, right + 18 + 12 * lane))
    width = right + _MARGIN + (24 + 12 * len(back) if back else 0)
    height = 2 * _MARGIN + (max(layer.values(), default=0) + 1) * (HEIGHT + GAP_Y) - GAP_Y
    hidden = [block for index, block in enumerate(code.blocks) if index not in shown and not _is_padding(block)]
    return Picture(width, height, boxes, tuple(curves), len(hidden))


def _shown(blocks: Sequence[Block]) -> set[int]:
    if len(blocks) <= LARGEST:
        return {index for index, block in enumerate(blocks) if block.ran or not _is_padding(block)}
    order = sorted(range(len(blocks)), key=lambda index: (-blocks[index].ran, index))
    return {0, *(index for index in order[: LARGEST - 1] if blocks[index].ran)}


def _is_padding(block: Block) -> bool:
    return all(row.is_padding for row in block.instructions)


def _thread(layer: dict[int, int], forward: list[Flow]) -> tuple[list[_Node], list[list[int]]]:
    # Nodes in the layers, and for each edge the nodes it passes: an edge over several layers gets a node in each.
    nodes = [_Node(block, layer[block]) for block in layer]
    at = {node.block: index for index, node in enumerate(nodes)}
    routes = []
    for flow in forward:
        route = [at[flow.source]]
        for middle in range(layer[flow.source] + 1, layer[flow.target]):
            route.append(len(nodes))
            nodes.append(_Node(-1, middle))
        routes.append([*route, at[flow.target]])
    return nodes, routes


def _order(nodes: list[_Node], routes: list[list[int]]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max((node.layer for node in nodes), default=0) + 1)]
    for index, node in enumerate(nodes):
        rows[node.layer].append(index)
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for route in routes:
        for one, other in pairwise(route):
            above.setdefault(other, []).append(one)
            below.setdefault(one, []).append(other)
    place = {index: float(number) for row in rows for number, index in enumerate(row)}
    for sweep in range(_SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            means = {
                index: sum(place[other] for other in near[index]) / len(near[index]) if index in near else place[index]
                for index in row
            }
            row.sort(key=lambda index: (means[index], index))
            for number, index in enumerate(row):
                place[index] = number - (len(row) - 1) / 2
    return rows


def _place(rows: list[list[int]], nodes: list[_Node]) -> tuple[dict[int, float], float]:
    def size(index: int) -> float:
        return WIDTH if nodes[index].block >= 0 else THREAD

    spans = [sum(map(size, row)) + GAP_X * (len(row) - 1) for row in rows]
    widest = max(spans, default=0)
    centre: dict[int, float] = {}
    for row, span in zip(rows, spans, strict=True):
        x = _MARGIN + (widest - span) / 2
        for index in row:
            centre[index] = x + size(index) / 2
            x += size(index) + GAP_X
    return centre, _MARGIN + widest


def _down(flow: Flow, route: list[int], centre: dict[int, float], top: dict[int, float]) -> Curve:
    shift = -14 if flow.falls else 14
    x, y = centre[route[0]] + shift, top[route[0]] + HEIGHT
    path = [f"M{x:.0f} {y:.0f}"]
    label = x + (4 if shift > 0 else -4), y + 13
    for index in route[1:]:
        goal, end = centre[index], top[index]
        bend = (end - y) / 2
        path.append(f"C{x:.0f} {y + bend:.0f} {goal:.0f} {end - bend:.0f} {goal:.0f} {end:.0f}")
        x, y = goal, end
        if index != route[-1]:
            y += HEIGHT
            path.append(f"L{x:.0f} {y:.0f}")
    return Curve(flow, "".join(path), *label, back=False)


def _up(flow: Flow, at: dict[int, int], centre: dict[int, float], top: dict[int, float], lane: float) -> Curve:
    source, target = at[flow.source], at[flow.target]
    x, y = centre[source] + WIDTH / 2, top[source] + HEIGHT * 0.7
    goal, end = centre[target] + WIDTH / 2, top[target] + HEIGHT * 0.3
    path = f"M{x:.0f} {y:.0f}C{lane:.0f} {y:.0f} {lane:.0f} {y:.0f} {lane:.0f} {(y + end) / 2:.0f}"
    path += f"C{lane:.0f} {end:.0f} {lane:.0f} {end:.0f} {goal:.0f} {end:.0f}"
    return Curve(flow, path, x + 4, y + 12, back=True)


def stroke(count: int, hottest: int) -> float:
    """Return how wide an edge of that count is drawn."""
    return 1 + 3 * math.log1p(count) / math.log1p(hottest) if hottest else 1
