"""A function's instructions and basic blocks, with how often the profile saw each run and each edge taken.

Fed by `counts` and the bytes of the function's file; `terminal` prints it, `flow` draws it. How often an instruction
ran is the number of straight lines over it. Instructions: capstone. Ours.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import capstone
import numpy as np

from archlbr.arch.branches import PerfBranch
from archlbr.report.summary import CALLS, Heat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archlbr.profile.stack import Words
    from archlbr.report.counts import Counts
    from archlbr.report.lines import SourceLine
    from archlbr.report.names import Names
    from archlbr.report.symbols import Place

# A function longer than this, in bytes, is not taken apart: nobody reads it as a graph.
LARGEST = 1 << 16
_RETURNS = (int(PerfBranch.RET), int(PerfBranch.COND_RET), int(PerfBranch.SYSRET), int(PerfBranch.ERET))
_ENDLESS = ("hlt", "ud2", "ud1", "ud0")


class Instruction(NamedTuple):
    """One instruction. address: the file's own. ran: how often. heat: of the branches taken at it."""

    address: int
    raw: bytes
    text: str
    ran: int
    heat: Heat | None
    line: SourceLine | None

    @property
    def is_padding(self) -> bool:
        """Whether it only fills the space to the next aligned address."""
        return self.text.startswith(("nop", "data16", "int3"))


class Block(NamedTuple):
    """A basic block: entered at its first instruction, left behind its last. ran: how often."""

    instructions: tuple[Instruction, ...]
    ran: int

    @property
    def start(self) -> int:
        """The address of its first instruction."""
        return self.instructions[0].address

    @property
    def last(self) -> Instruction:
        """Its last instruction that is no padding, or its last."""
        return next((row for row in reversed(self.instructions) if not row.is_padding), self.instructions[-1])


class Flow(NamedTuple):
    """An edge between two blocks, by their numbers: a taken branch, or (falls) straight on."""

    source: int
    target: int
    times: int
    falls: bool


class FunctionCode(NamedTuple):
    """A function, in address order."""

    place: Place
    blocks: tuple[Block, ...]
    flows: tuple[Flow, ...]


class _Row(NamedTuple):
    address: int
    raw: bytes
    text: str
    target: int  # of a direct branch, else -1
    ends: bool  # a jump or a return: a block ends here
    stops: bool  # nothing falls through
    calls: bool


def read_code(counts: Counts, names: Names, file: int, number: int) -> FunctionCode | None:
    """Return the code of the `number`th function of a file; None where its bytes cannot be read or are too many."""
    symbols = names.symbols(file)
    function = symbols.functions[number]
    size = function.end - function.start
    first = symbols.offset(function.start)
    if size > LARGEST or not Path(names.files[file]).is_file():
        return None
    with open(names.files[file], "rb") as stream:
        stream.seek(first)
        code = stream.read(size)
    rows = _disassemble(code, function.start, names, file)
    if not rows:
        return None
    moved = np.uint64((function.start - first) % (1 << 64))
    table = counts.branches
    out = table[(table["from_file"] == file) & _inside(table["from_offset"] + moved, function.start, function.end)]
    into = table[(table["to_file"] == file) & _inside(table["to_offset"] + moved, function.start, function.end)]
    lines = counts.lines[counts.lines["file"] == file]
    addresses = np.array([row.address for row in rows], dtype=np.uint64)
    ran, crossed = _run(addresses, lines["start"] + moved, lines["end"] + moved, lines["count"], function.end)
    heats = _heats(out["from_offset"] + moved, out)
    entered = into[~np.isin(into["type"], _RETURNS)]["to_offset"] + moved
    starts = _leaders(rows, {int(address) for address in np.unique(entered)})
    blocks = []
    for low, high in pairwise([*starts, len(rows)]):
        inside = tuple(
            Instruction(
                row.address,
                row.raw,
                row.text,
                int(ran[index]),
                heats.get(row.address),
                names.line(file, symbols.offset(row.address)),
            )
            for index, row in enumerate(rows[low:high], low)
        )
        blocks.append(Block(inside, max(row.ran for row in inside)))
    returned = into[np.isin(into["type"], _RETURNS)]
    came = _sums(returned["to_offset"] + moved, returned["count"])
    return FunctionCode(
        names.function(file, number), tuple(blocks), _flows(rows, starts, out, moved, crossed.tolist(), came)
    )


def _inside(addresses: Words, start: int, end: int) -> NDArray[np.bool_]:
    return (addresses >= np.uint64(start)) & (addresses < np.uint64(end))


def _disassemble(code: bytes, start: int, names: Names, file: int) -> list[_Row]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    symbols = names.symbols(file)
    rows = []
    for row in decoder.disasm(code, start):
        jumps = row.group(capstone.CS_GRP_JUMP) or row.group(capstone.CS_GRP_BRANCH_RELATIVE)
        calls = row.group(capstone.CS_GRP_CALL)
        returns = row.group(capstone.CS_GRP_RET) or row.group(capstone.CS_GRP_IRET)
        target = -1
        text = f"{row.mnemonic} {row.op_str}".strip()
        if (jumps or calls) and row.operands and row.operands[-1].type == capstone.x86.X86_OP_IMM:
            target = int(row.operands[-1].imm)
            text = f"{row.mnemonic} {symbols.place(symbols.offset(target))}"
        stops = returns or row.id in (capstone.x86.X86_INS_JMP, capstone.x86.X86_INS_LJMP) or row.mnemonic in _ENDLESS
        ends = bool((jumps and not calls) or stops)
        rows.append(_Row(row.address, bytes(row.bytes), text, target, ends, bool(stops), bool(calls)))
    return rows


def _run(
    addresses: Words, starts: Words, ends: Words, counts: Words, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # How often each instruction ran, and how often straight on to the next.
    inside = (ends >= addresses[0]) & (starts < np.uint64(limit))
    low = np.searchsorted(addresses, starts[inside])
    high = np.searchsorted(addresses, ends[inside], side="right") - 1
    many = counts[inside].astype(np.int64)
    ran, crossed = (np.zeros(len(addresses) + 1, dtype=np.int64) for _ in range(2))
    np.add.at(ran, low, many)
    np.add.at(ran, high + 1, -many)
    np.add.at(crossed, low, many)
    np.add.at(crossed, high, -many)
    return np.cumsum(ran)[:-1], np.cumsum(crossed)[:-1]


def _sums(addresses: Words, counts: Words) -> dict[int, int]:
    out: dict[int, int] = {}
    for address, many in zip(addresses.tolist(), counts.tolist(), strict=True):
        out[address] = out.get(address, 0) + many
    return out


def _heats(addresses: Words, rows: NDArray[np.void]) -> dict[int, Heat]:
    sums = [_sums(addresses, rows[name]) for name in ("count", "mispred", "cycles", "timed")]
    return {address: Heat(*(column[address] for column in sums)) for address in sums[0]}


def _leaders(rows: list[_Row], entered: set[int]) -> list[int]:
    # Where blocks start: the first instruction, what is jumped to, and what stands behind a jump.
    targets = entered | {row.target for row in rows if not row.calls}
    return [index for index, row in enumerate(rows) if index == 0 or row.address in targets or rows[index - 1].ends]


def _flows(
    rows: list[_Row],
    starts: list[int],
    out: NDArray[np.void],
    moved: np.uint64,
    crossed: list[int],
    came: dict[int, int],
) -> tuple[Flow, ...]:
    number = {rows[index].address: block for block, index in enumerate(starts)}
    taken: dict[tuple[int, int], int] = {}
    jumped = out[~np.isin(out["type"], (*CALLS, *_RETURNS)) & (out["to_file"] == out["from_file"])]
    for source, target, many in zip(
        (jumped["from_offset"] + moved).tolist(),
        (jumped["to_offset"] + moved).tolist(),
        jumped["count"].tolist(),
        strict=True,
    ):
        taken[source, target] = taken.get((source, target), 0) + many
    flows = []
    for block, (low, high) in enumerate(pairwise([*starts, len(rows)])):
        assert low < high
        last = rows[high - 1]
        goals = {target: many for (source, target), many in taken.items() if source == last.address}
        if last.target >= 0 and last.ends:
            goals.setdefault(last.target, 0)
        flows += [Flow(block, number[goal], many, False) for goal, many in sorted(goals.items()) if goal in number]
        if not last.stops and high < len(rows):
            many = came.get(rows[high].address, 0) if last.calls else crossed[high - 1]
            flows.append(Flow(block, block + 1, many, True))
    return tuple(flows)


def taken_by_function(counts: Counts, names: Names) -> dict[tuple[int, int], int]:
    """Return how many branches were taken in each function, by its file and number there."""
    table = counts.branches
    numbers = names.functions(table["from_file"], table["from_offset"])
    totals: dict[tuple[int, int], int] = {}
    for file, number, many in zip(table["from_file"].tolist(), numbers.tolist(), table["count"].tolist(), strict=True):
        if number >= 0:
            totals[file, number] = totals.get((file, number), 0) + many
    return totals


def find_function(counts: Counts, names: Names, symbol: str) -> tuple[int, int] | None:
    """Return the file and number of the function of that name with the most branches taken in it; None for none."""
    totals = taken_by_function(counts, names)
    named = [key for key in totals if names.function(*key).symbol == symbol]
    return max(named, key=lambda key: (totals[key], key), default=None)
