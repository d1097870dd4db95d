"""Recordings: what is kept is given again, and what is no recording is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archlbr.conformance.cases.table import CASES
from archlbr.conformance.cases.words import G
from archlbr.conformance.run import Result, Verdict, run
from archlbr.conformance.targets.model import ModelTarget
from archlbr.conformance.targets.recording import Recorder, Recording
from archlbr.errors import InputError
from archlbr.vpmu.designs import SERIES_V2

SOME = [case for case in CASES if case.name.startswith(("migrate-", "xrstors-", "user-xsave"))]


def recorded(target: ModelTarget) -> tuple[list[Result], str]:
    recorder = Recorder(target)
    return list(run(recorder, SOME)), recorder.document()


@pytest.mark.parametrize("target", [ModelTarget(), ModelTarget(SERIES_V2)], ids=lambda target: target.name)
def test_a_recording_is_judged_as_its_target_was(target: ModelTarget) -> None:
    live, document = recorded(target)
    replayed = list(run(Recording(document, "a file"), SOME))
    assert replayed == live
    assert {result.verdict for result in live} >= {Verdict.PASS, Verdict.SKIP}


def test_a_case_that_was_not_recorded_is_lacking() -> None:
    _, document = recorded(ModelTarget())
    other = next(case for case in CASES if case.name == "smi-saves")
    asked = tuple(step.question for step in other.steps)
    assert Recording(document, "a file").lacks(other.setup, asked) == "these questions in the recording"


def test_another_value_is_another_question() -> None:
    _, document = recorded(ModelTarget())
    case = next(case for case in SOME if case.name == "migrate-goes-on")
    recording = Recording(document, "a file")
    asked = tuple(step.question for step in case.steps)
    assert recording.lacks(case.setup, asked) == ""
    assert recording.lacks(case.setup, asked[::-1]) != ""
    assert recording.lacks(G._replace(vcpus=2), asked) != ""


def test_the_document_is_what_the_formats_say() -> None:
    _, document = recorded(ModelTarget())
    read = json.loads(document)
    assert {key: read[key] for key in ("kind", "version", "target", "known_as")} == {
        "kind": "archlbr conformance recording",
        "version": 1,
        "target": "model",
        "known_as": ["model", "archlbr"],
    }
    session = next(session for session in read["sessions"] if session["asked"][0][0] == "NewVm")
    assert session["setup"][0] == "Setup"
    assert len(session["answers"]) == len(session["asked"]) + 1
    assert session["answers"][0] == ["Done"]
    assert [session["lacks"] for session in read["sessions"] if "lacks" in session] == ["KVM_GET_XSAVE2 in the model"]


def test_a_real_kvm_s_answers_are_judged_without_a_kvm() -> None:
    # A KVM without Intel hardware and without a PMU, asked on 24 November 2026.
    recording = Recording((Path(__file__).parent / "recordings" / "kvm-without-pmu.json").read_text(), "kvm")
    results = list(run(recording, CASES))
    passed = {result.case.name for result in results if result.verdict is Verdict.PASS}
    assert {result.verdict for result in results} == {Verdict.PASS, Verdict.SKIP}
    assert len(passed) == 31
    assert {"no-edx19-FROM_0", "legacy-plain-guest-LBR_SELECT", "savable-vmm-XSS", "user-xsave-without-lbrs"} <= passed


def test_two_recordings_of_one_target_are_equal() -> None:
    assert recorded(ModelTarget())[1] == recorded(ModelTarget())[1]


def changed(**fields: object) -> str:
    document = json.loads(recorded(ModelTarget())[1])
    return json.dumps(document | fields)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(version=2), "a recording of version 2, not 1; record again"),
        (changed(version=None), "a recording of version None, not 1; record again"),
        (changed(kind="something"), "no recording; make one with conform --record"),
        (changed(sessions=[{}]), "a damaged recording"),
        (changed(sessions=7), "a damaged recording"),
        (
            changed(sessions=[{"setup": 1, "asked": [], "answers": [["Done"], ["Done"]]}]),
            "ends in the middle of a case",
        ),
        (changed(sessions=[{"setup": 1, "asked": [], "answers": [["Dome"]]}]), "is no answer of a recording"),
        (changed(sessions=[{"setup": 1, "asked": [], "answers": [["Value", "zz"]]}]), "is no answer of a recording"),
        ("[]", "no recording; make one with conform --record"),
        ("{", "no recording (not JSON"),
        ("", "no recording (not JSON"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(content: str, said: str) -> None:
    with pytest.raises(InputError) as refusal:
        Recording(content, "a file")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_each_truncation_is_refused() -> None:
    _, document = recorded(ModelTarget())
    for length in range(0, len(document) - 2, 9973):
        with pytest.raises(InputError):
            Recording(document[:length], "a file")
