"""States taken apart: a model whose steps touch few parts of a state is explored over packed integers.

`contract` says what the parts are (`Divided`), `explore` and `liveness` search the `Packed` model in place of the model
itself. The real step runs once for each action and each content of the parts that it reads; what it did is then
remembered, exactly and for ever. Each part's values are numbered as they are met, and a state is one integer, a field a
part: small, quick to hash, equal when the states are equal. What a step reads and writes is the model's claim; a write
outside it is found at once, a read outside it by `check_parts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol

from archlbr.check.model import A, Model, Property, S
from archlbr.check.reduce import Independence
from archlbr.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


WIDTH = 24  # bits a part: sixteen million values
_FIELD = (1 << WIDTH) - 1


class Touch(NamedTuple):
    """The parts of a state that one action reads, and those that it may change, by their places."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]


class Divided(Model[S, A], Protocol[S, A]):
    """A model that says what its states are made of.

    split, join: a state as a tuple of parts, always as many, and back. offering: the parts that `actions` reads. touch:
    what `next` reads and writes for an action that a state offers; it depends on the offering parts alone.
    """

    def split(self, state: S) -> tuple[Hashable, ...]:
        """Return the parts of a state."""
        ...

    def join(self, parts: Sequence[Hashable]) -> S:
        """Return the state made of parts."""
        ...

    def offering(self) -> tuple[int, ...]:
        """Return the places of the parts that decide what a state offers."""
        ...

    def touch(self, state: S, action: A) -> Touch:
        """Return what an action reads and writes."""
        ...


class _Way(NamedTuple, Generic[A]):
    # action, bits that it reads, bits that it leaves alone, and what it made of what it read.
    action: A
    reads: int
    keeps: int
    made: dict[int, int | None]


class Packed(Generic[S, A]):
    """A divided model over integers; a `Model` itself, and `successors` beside."""

    def __init__(self, model: Divided[S, A]) -> None:
        self.model = model
        first = model.split(next(iter(model.initial())))
        self._shifts = tuple(WIDTH * place for place in range(len(first)))
        self._values: list[list[Hashable]] = [[] for _ in first]
        self._numbers: list[dict[Hashable, int]] = [{} for _ in first]
        self._whole = (1 << WIDTH * len(first)) - 1
        self._masks: dict[tuple[int, ...], int] = {}
        self._offering = self.mask(model.offering())
        self._menus: dict[int, tuple[_Way[A], ...]] = {}
        self._made: dict[tuple[A, int, int], dict[int, int | None]] = {}
        self._keys: dict[int, Callable[[int], int]] = {}
        self._shared: dict[tuple[tuple[A, int, int], ...], tuple[_Way[A], ...]] = {}
        self._last: tuple[int, S] | None = None
        self.steps = 0  # how often the real step ran

    def mask(self, places: Sequence[int]) -> int:
        """Return the bits of some parts."""
        wanted = tuple(places)
        bits = self._masks.get(wanted)
        if bits is None:
            bits = self._masks[wanted] = sum(_FIELD << WIDTH * place for place in set(wanted))
        return bits

    def pack(self, state: S) -> int:
        """Return the integer of a state."""
        packed = 0
        for value, numbers, values, shift in zip(
            self.model.split(state), self._numbers, self._values, self._shifts, strict=True
        ):
            number = numbers.get(value)
            if number is None:
                number = numbers[value] = len(values)
                if number > _FIELD:
                    raise InternalError(f"a part of a state has more than {_FIELD:,} values: widen check.parts.WIDTH")
                values.append(value)
            packed |= number << shift
        return packed

    def unpack(self, packed: int) -> S:
        """Return the state of an integer; the last one is kept, since a state is asked for several times in a row."""
        if self._last is not None and self._last[0] == packed:
            return self._last[1]
        state = self.model.join(
            [values[packed >> shift & _FIELD] for values, shift in zip(self._values, self._shifts, strict=True)]
        )
        self._last = packed, state
        return state

    # The four functions

    def initial(self) -> list[int]:
        """Return the states the system may start in."""
        return [self.pack(state) for state in self.model.initial()]

    def actions(self, packed: int) -> tuple[A, ...]:
        """Return what may happen in a state."""
        return tuple([way.action for way in self._menu(packed)])

    def next(self, packed: int, action: A) -> int | None:
        """Return the state after an action, None where it does nothing."""
        for way in self._menu(packed):
            if way.action == action:
                read = packed & way.reads
                made = way.made[read] if read in way.made else self._make(packed, way)
                return None if made is None else packed & way.keeps | made
        raise InternalError(f"{self.model.describe(action)} is not offered here")

    def describe(self, action: A) -> str:
        """Return an action in words."""
        return self.model.describe(action)

    # What is quicker than four functions

    def successors(self, packed: int) -> list[tuple[A, int]]:
        """Return each action that leads somewhere, with where it leads."""
        menu = self._menus.get(packed & self._offering)
        if menu is None:
            menu = self._menu(packed)
        found = []
        for action, reads, keeps, made in menu:
            key = packed & reads
            after = made[key] if key in made else self._make(packed, _Way(action, reads, keeps, made))
            if after is not None:
                found.append((action, packed & keeps | after))
        return found

    def claim(self, claim: Property[S]) -> Property[int]:
        """Return a property of packed states, with the parts it reads as its key."""
        predicate, unpack = claim.predicate, self.unpack
        key = None if claim.parts is None else self._key(self.mask(claim.parts))
        return Property(
            claim.name,
            claim.kind,
            lambda packed: bool(predicate(unpack(packed))),
            claim.fair,
            claim.parts,
            key,
            claim.strong,
        )

    def images(
        self, exchanged: Callable[[S], S], moves: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> Callable[[int], tuple[int, int]]:
        """Return what gives a packed state and its image under an exchange of names.

        moves: groups of parts, each with the places it goes to; what it becomes there depends on the group alone.
        """
        rows: list[tuple[int, int, dict[int, int]]] = [(self.mask(here), self.mask(there), {}) for here, there in moves]

        def both(packed: int) -> tuple[int, int]:
            image = 0
            for here, there, known in rows:
                group = packed & here
                moved = known.get(group)
                if moved is None:
                    moved = known[group] = self.pack(exchanged(self.unpack(packed))) & there
                image |= moved
            return packed, image

        return both

    def independence(self, process: Callable[[A], Hashable], local: Callable[[S, A], bool]) -> Independence[int, A]:
        """Return an independence of packed states; `local` reads no more than the offering parts."""
        return Independence(
            process, lambda packed, action: local(self.unpack(packed), action), self._key(self._offering)
        )

    def _key(self, bits: int) -> Callable[[int], int]:
        # One function for the same bits, so that claims are judged together.
        return self._keys.setdefault(bits, lambda packed: packed & bits)

    def _menu(self, packed: int) -> tuple[_Way[A], ...]:
        key = packed & self._offering
        menu = self._menus.get(key)
        if menu is None:
            state = self.unpack(packed)
            rows = []
            for action in self.model.actions(state):
                reads, writes = self.model.touch(state, action)
                rows.append((action, self.mask(reads), self._whole & ~self.mask(writes)))
            shape = tuple(rows)
            menu = self._shared.get(shape)
            if menu is None:
                menu = tuple([_Way(*row, self._made.setdefault(row, {})) for row in rows])
                self._shared[shape] = menu
            self._menus[key] = menu
        return menu

    def _make(self, packed: int, way: _Way[A]) -> int | None:
        self.steps += 1
        after = self.model.next(self.unpack(packed), way.action)
        made = None
        if after is not None:
            whole = self.pack(after)
            if (whole ^ packed) & way.keeps:
                raise InternalError(f"{self.model.describe(way.action)} changes more than it says that it touches")
            made = whole & ~way.keeps
        way.made[packed & way.reads] = made
        return made


def check_parts(model: Divided[S, A], *, limit: int | None = None) -> int:
    """Make each reachable transition both ways; return how many were compared, InternalError if two differ.

    limit: the most states to meet. A pass shows that the parts which `touch` names are enough for these states.
    """
    packed, compared = Packed(model), 0
    met = dict.fromkeys(model.initial())
    for state in (queue := list(met)):
        number = packed.pack(state)
        ways = [(action, packed.unpack(after)) for action, after in packed.successors(number)]
        real = [(action, after) for action in model.actions(state) if (after := model.next(state, action)) is not None]
        if ways != real:
            raise InternalError(f"state {len(met)}: a step reads more than it says that it touches")
        compared += len(real)
        for _, after in real:
            if after not in met and (limit is None or len(met) < limit):
                met[after] = None
                queue.append(after)
    return compared
