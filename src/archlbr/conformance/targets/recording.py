"""A target's answers as a file: `Recorder` writes them while another target is asked, `Recording` gives them again.

The answers lie in a tree: below each setup the questions in their order, so that a case is answered whenever its
questions were asked from the same start, whatever the case was called then. docs/formats.md describes the file.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from archlbr.conformance import questions as q
from archlbr.conformance.encoding import Json, answer, encoded
from archlbr.conformance.wrapped import Wrapped
from archlbr.errors import InputError, InternalError

if TYPE_CHECKING:
    from archlbr.conformance.answers import Answer
    from archlbr.conformance.target import Target

KIND: Final = "archlbr conformance recording"
VERSION: Final = 1


class Recorder(Wrapped):
    """Another target, whose answers are kept; `document` returns them when all is asked."""

    def __init__(self, inside: Target) -> None:
        super().__init__(inside)
        self._sessions: list[dict[str, Json]] = []

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Keep what the target lacks."""
        lacking = self.inside.lacks(setup, asked)
        session: dict[str, Json] = {"setup": encoded(setup), "asked": [encoded(question) for question in asked]}
        if lacking:
            session["lacks"] = lacking
        else:
            session["answers"] = []
        self._sessions.append(session)
        return lacking

    def start(self, setup: q.Setup) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.start(setup))

    def new_vm(self, setup: q.Setup) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.new_vm(setup))

    def offered(self, leaf: int, subleaf: int) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.offered(leaf, subleaf))

    def msr_list(self) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.msr_list())

    def feature(self, msr: int) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.feature(msr))

    def set_cpuid(self, guest: q.Guest) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.set_cpuid(guest))

    def get_msr(self, msr: int, other_thread: int) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.get_msr(msr, other_thread))

    def set_msr(self, msr: int, value: int, other_thread: int) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.set_msr(msr, value, other_thread))

    def execute(self, instruction: q.Instruction) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.execute(instruction))

    def branch(self, branch: q.Branch) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.branch(branch))

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.happen(event))

    def look(self, place: q.Place, at: int) -> Answer:
        """Keep the answer."""
        return self._kept(self.inside.look(place, at))

    def document(self) -> str:
        """Return the recording as it stands in a file."""
        head = {"kind": KIND, "version": VERSION, "target": self.name, "known_as": list(self.known_as)}
        rows = ",\n".join(json.dumps(session, separators=(",", ":")) for session in self._sessions)
        return f'{json.dumps(head)[:-1]}, "sessions": [\n{rows}\n]}}\n'

    def _kept(self, given: Answer) -> Answer:
        self._sessions[-1]["answers"].append(encoded(given))
        return given


class Recording:
    """The answers of a recording; InputError when the text is none, or of another version."""

    def __init__(self, content: str, name: str) -> None:
        document = _document(content, name)
        try:
            self.name = str(document["target"])
            self.known_as = tuple(str(word) for word in document["known_as"])
            self._answers: dict[str, Answer] = {}
            self._lacking: dict[str, str] = {}
            for session in document["sessions"]:
                self._take(session)
        except (KeyError, TypeError, AttributeError, RecursionError) as wrong:
            raise InputError(f"{name}: a damaged recording ({wrong!r}); record again") from wrong
        self._at = ""

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Name what the recorded target lacked, or that it was not asked this."""
        at = _node("", encoded(setup))
        for question in asked:
            at = _node(at, encoded(question))
        if at in self._answers:
            return ""
        return self._lacking.get(at, "these questions in the recording")

    def start(self, setup: q.Setup) -> Answer:
        """Return the recorded answer."""
        self._at = ""
        return self._answer(encoded(setup))

    def new_vm(self, setup: q.Setup) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.NewVm(setup)))

    def offered(self, leaf: int, subleaf: int) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.Offered(leaf, subleaf)))

    def msr_list(self) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.SaveList()))

    def feature(self, msr: int) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.FeatureMsr(msr)))

    def set_cpuid(self, guest: q.Guest) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.SetCpuid(guest)))

    def get_msr(self, msr: int, other_thread: int) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.GetMsr(msr, other_thread)))

    def set_msr(self, msr: int, value: int, other_thread: int) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.SetMsr(msr, value, other_thread)))

    def execute(self, instruction: q.Instruction) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(instruction))

    def branch(self, branch: q.Branch) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(branch))

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(event if isinstance(event, q.EnterL2) else q.Happen(event)))

    def look(self, place: q.Place, at: int) -> Answer:
        """Return the recorded answer."""
        return self._answer(encoded(q.Look(place, at)))

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, question: Json) -> Answer:
        self._at = _node(self._at, question)
        if self._at not in self._answers:
            raise InternalError(f"{self.name}: asked {question} though the recording lacks it")
        return self._answers[self._at]

    def _take(self, session: dict[str, Json]) -> None:
        at = _node("", session["setup"])
        nodes = [at]
        for question in session["asked"]:
            at = _node(at, question)
            nodes.append(at)
        if "lacks" in session:
            self._lacking[at] = str(session["lacks"])
            return
        if len(session["answers"]) != len(nodes):
            raise InputError(f"a recording of {self.name} ends in the middle of a case; record again")
        for node, given in zip(nodes, session["answers"], strict=True):
            self._answers[node] = answer(given)


def _document(content: str, name: str) -> dict[str, Json]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as wrong:
        raise InputError(f"{name}: no recording (not JSON: {wrong}); make one with conform --record") from wrong
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise InputError(f"{name}: no recording; make one with conform --record")
    if document.get("version") != VERSION:
        raise InputError(f"{name}: a recording of version {document.get('version')}, not {VERSION}; record again")
    return document


def _node(above: str, question: Json) -> str:
    spelled = json.dumps(question, separators=(",", ":"))
    return hashlib.sha256(f"{above}\n{spelled}".encode()).hexdigest()
