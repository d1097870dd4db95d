"""A device's state as a tree of lists and hexadecimal strings, and back.

A device names in `STATE` the attributes that persist, and in `RANGES` what those can be that other values would break;
what else it has is wiring. `machine.snapshot` captures a board's
devices and puts them into another board's. The attribute that is there says what type comes back. The form is ours,
docs/formats.md.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from archlbr.errors import InputError

# A number of a tree stands for a register or a clock: 64 bits, and a sign for clocks that say "never".
_LIMIT: Final = 1 << 64
_MOST: Final = 1 << 20


def captured(value: Any) -> Any:
    """Return the tree of a value: numbers, bytes, sequences, dicts of numbers, and objects with STATE."""
    if isinstance(value, int):
        return f"{int(value):#x}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return [[captured(key), captured(value[key])] for key in sorted(value)]
    if isinstance(value, tuple | list | deque):
        return [captured(item) for item in value]
    return {name: captured(getattr(value, name)) for name in value.STATE}


def restored(value: Any, tree: Any) -> Any:
    """Return what a tree says in the shape of `value`; objects with STATE are changed in place.

    InputError when the tree has another shape.
    """
    try:
        return _restored(value, tree)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            "the snapshot contradicts itself: a device's state has another form; take a new one"
        ) from error


def _restored(value: Any, tree: Any) -> Any:
    if isinstance(value, int):
        number = int(tree, 16)
        if not -_LIMIT < number < 1 << 256:
            raise ValueError(tree)
        return number
    if isinstance(value, bytes):
        return bytes.fromhex(tree)
    if isinstance(value, dict):
        pairs = {_restored(0, key): _restored(0, content) for key, content in tree}
        if pairs.keys() != value.keys():
            raise KeyError
        return pairs
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_restored(old, new) for old, new in zip(value, tree, strict=True)))
    if isinstance(value, tuple):
        return tuple(_restored(old, new) for old, new in zip(value, tree, strict=True))
    if isinstance(value, list | deque):
        if not isinstance(tree, list) or len(tree) > _MOST:
            raise ValueError
        return type(value)(_restored(0, item) for item in tree)
    if tree.keys() != set(value.STATE):
        raise KeyError
    for name in value.STATE:
        setattr(value, name, _restored(getattr(value, name), tree[name]))
    for name, possible in getattr(value, "RANGES", {}).items():
        if getattr(value, name) not in possible:
            raise ValueError(name)
    return value
