"""Questions and answers as JSON values: what a recording holds.

A tuple with a name becomes a list that begins with the name; a number is a string in hexadecimal; bytes are their
hexadecimal digits. Questions are only compared, answers are read back. `targets.recording` uses it; docs/formats.md
describes it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from archlbr.arch import outcomes
from archlbr.conformance import answers
from archlbr.errors import InputError

Json: TypeAlias = Any

_ANSWERS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        outcomes.Done, outcomes.Value, outcomes.Image, outcomes.GeneralProtection, outcomes.UndefinedOpcode,
        answers.Failed, answers.VmFail, answers.Reflected, answers.Stopped, answers.Registers, answers.Indices,
    )
}  # fmt: skip


def encoded(value: object) -> Json:
    """Return a question, an answer or a part of one as a JSON value."""
    match value:
        case None | str():
            return value if value is None else str(value)
        case bytes():
            return value.hex()
        case int():
            return f"{value:#x}"
        case tuple():
            name = [type(value).__name__] if hasattr(value, "_fields") else []
            return [*name, *(encoded(part) for part in value)]
        case _:
            raise TypeError(f"{value!r} is no part of a question or an answer")


def answer(value: Json) -> answers.Answer:
    """Return the answer of a JSON value; InputError when it is none."""
    try:
        name, *parts = value
        kind = _ANSWERS[name]
        if kind is outcomes.Image:
            return outcomes.Image(bytes.fromhex(parts[0]))
        if kind is answers.Indices:
            return answers.Indices(tuple(int(msr, 16) for msr in parts[0]))
        read: answers.Answer = kind(*(int(part, 16) for part in parts))
    except (KeyError, TypeError, ValueError, IndexError) as wrong:
        raise InputError(f"{str(value)[:60]!r} is no answer of a recording; record again") from wrong
    return read
