"""Which cases to ask: an expression of names, as pytest's -k has it.

    expression = term {"or" term};  term = factor {"and" factor};  factor = "not" factor | "(" expression ")" | WORD

A word holds for a case whose name contains it; `row:N` holds for the row of that number in reference kvm-series.md D.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from archlbr.conformance.case import Case
from archlbr.errors import InputError

Chooses: TypeAlias = Callable[[Case], bool]
# Each may open a level of the parser, and of the predicate.
_MOST_WORDS = 100
_TOKEN = re.compile(r"\s*(\(|\)|[\w.:+-]+)")


def selection(expression: str) -> Chooses:
    """Return the predicate of an expression; the empty one holds for all. InputError when it is none."""
    words = _words(expression)
    if not words:
        return lambda _case: True
    if len(words) > _MOST_WORDS:
        raise _wrong(expression[:60], f"it has {len(words)} words and parentheses, {_MOST_WORDS} may stand in one")
    chooses, rest = _either(words, expression)
    if rest:
        raise _wrong(expression, f"{rest[0]!r} is one word too many")
    return chooses


def _words(expression: str) -> list[str]:
    words, at = [], 0
    while expression[at:].strip():
        token = _TOKEN.match(expression, at)
        if token is None:
            raise _wrong(expression, f"{expression[at:].strip()[0]!r} is no word")
        words.append(token[1])
        at = token.end()
    return words


def _either(words: list[str], expression: str) -> tuple[Chooses, list[str]]:
    chooses, rest = _both(words, expression)
    while rest[:1] == ["or"]:
        right, rest = _both(rest[1:], expression)
        chooses = _or(chooses, right)
    return chooses, rest


def _both(words: list[str], expression: str) -> tuple[Chooses, list[str]]:
    chooses, rest = _one(words, expression)
    while rest[:1] == ["and"]:
        right, rest = _one(rest[1:], expression)
        chooses = _and(chooses, right)
    return chooses, rest


def _one(words: list[str], expression: str) -> tuple[Chooses, list[str]]:
    match words:
        case ["not", *rest]:
            inner, rest = _one(rest, expression)
            return (lambda case: not inner(case)), rest
        case ["(", *rest]:
            inner, rest = _either(rest, expression)
            if rest[:1] != [")"]:
                raise _wrong(expression, "a parenthesis is not closed")
            return inner, rest[1:]
        case [] | [("and" | "or" | ")"), *_]:
            raise _wrong(expression, "a name is missing")
        case [word, *rest]:
            return _named(word), rest
    raise _wrong(expression, "a name is missing")


def _named(word: str) -> Chooses:
    row = re.fullmatch(r"row:(\d+)", word)
    if row:
        number = int(row[1])
        return lambda case: case.row == number
    lower = word.lower()
    return lambda case: lower in case.name.lower()


def _or(left: Chooses, right: Chooses) -> Chooses:
    return lambda case: left(case) or right(case)


def _and(left: Chooses, right: Chooses) -> Chooses:
    return lambda case: left(case) and right(case)


def _wrong(expression: str, why: str) -> InputError:
    return InputError(
        f"-k {expression!r}: {why}; write names with and, or, not and parentheses, as in 'ctl and not vmm'"
    )
