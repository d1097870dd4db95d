"""A run as one line that can be pasted: version, model, property, the choices made, a checksum.

`cli` prints it under each violation and `archlbr replay` takes it back. Form: `archlbr-replay-1:MODEL:PROPERTY:C:SUM`,
C the place of each action among those the model offered, in base 36 and joined by dots, after a slash the place in C
where a cycle starts, for a run that owes for ever; SUM the CRC-32 of all before it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from archlbr.check.model import A, Model, S
from archlbr.errors import InputError, InternalError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC, VERSION = "archlbr-replay", 1
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CHOICES = re.compile(r"((?:[0-9a-z]{1,4}(?:\.[0-9a-z]{1,4})*)?)(?:/([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Line:
    """A replay line, taken apart; loop: where the cycle starts among the choices, None for a finite run."""

    model: str
    claim: str
    choices: tuple[int, ...]
    loop: int | None = None


@dataclass(frozen=True, slots=True)
class Run(Generic[S, A]):
    """The states of a run and the actions between them; one state more than actions."""

    states: tuple[S, ...]
    actions: tuple[A, ...]


def choices_of(model: Model[S, A], path: Sequence[A]) -> tuple[int, ...]:
    """Return the place of each action of a path that starts in the model's first initial state."""
    state = next(iter(model.initial()))
    choices: list[int] = []
    for action in path:
        choices.append(list(model.actions(state)).index(action))
        after = model.next(state, action)
        if after is None:
            raise InternalError(f"{model.describe(action)} leads nowhere at step {len(choices)} of a path")
        state = after
    return tuple(choices)


def encode(line: Line) -> str:
    """Return the line as text."""
    body = ".".join(_base36(choice) for choice in line.choices)
    if line.loop is not None:
        body += f"/{line.loop}"
    text = f"{MAGIC}-{VERSION}:{line.model}:{line.claim}:{body}"
    return f"{text}:{zlib.crc32(text.encode()):08x}"


def decode(text: str) -> Line:
    """Return the line a text holds; InputError when it is none, was damaged, or is of another version."""
    parts = text.strip().split(":")
    if not parts[0].startswith(f"{MAGIC}-"):
        raise InputError(f"not a replay line: it starts with '{MAGIC}-{VERSION}:', as `archlbr check` prints it")
    if parts[0] != f"{MAGIC}-{VERSION}":
        raise InputError(f"replay line of another version ({parts[0]}): this one reads version {VERSION}; check again")
    content = ":".join(parts[:4]).encode(errors="surrogateescape")
    if len(parts) != 5 or f"{zlib.crc32(content):08x}" != parts[4]:
        raise InputError("damaged replay line: the checksum differs; paste it whole, as `archlbr check` prints it")
    choices = _CHOICES.fullmatch(parts[3])
    if choices is None:
        raise InputError(f"damaged replay line: {parts[3][:60]!r} are no choices; paste what `archlbr check` prints")
    body, loop = choices.groups()
    taken = tuple(int(word, 36) for word in body.split(".") if word)
    return Line(parts[1], parts[2], taken, None if loop is None else int(loop))


def run(model: Model[S, A], line: Line) -> Run[S, A]:
    """Return the run a line stands for; InputError when the model no longer offers a choice."""
    state = next(iter(model.initial()))
    states, actions = [state], list[A]()
    for number, choice in enumerate(line.choices, 1):
        offered = model.actions(state)
        after = model.next(state, offered[choice]) if choice < len(offered) else None
        if after is None:
            raise InputError(f"the replay line no longer applies at step {number}: run `archlbr check` again")
        actions.append(offered[choice])
        state = after
        states.append(state)
    return Run(tuple(states), tuple(actions))


def _base36(number: int) -> str:
    text = _DIGITS[number % 36]
    while number >= 36:
        number //= 36
        text = _DIGITS[number % 36] + text
    return text
