"""`archlbr conform`: the table, what it prints, what it refuses, and the exit status of each."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from archlbr.conformance.cases.table import CASES
from archlbr.conformance.targets import kvm
from tests.cli.shell import archlbr

PASSING = "smi-clears-lbren or smi-saves"


def test_the_whole_table_holds_on_the_model() -> None:
    ran = archlbr("conform")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["case", "model"]
    assert [line.split()[0] for line in lines[1 : len(CASES) + 1]] == [case.name for case in CASES]
    assert lines[-1] == f"model: {len(CASES) - 6} pass, 5 differs, 0 fail, 1 skip"


def test_two_targets_are_two_columns() -> None:
    ran = archlbr("conform", "--target", "model", "--target", "model:series-v2", "-k", "init-keeps-ctl or smi-saves")
    assert ran.status == 0
    assert ran.out.startswith(
        "case            model    model:series-v2\n"
        "smi-saves       pass     pass\n"
        "init-keeps-ctl  pass     differs\n"
        "\n"
        "differs, as known:\n"
        "  model:series-v2     1  INIT is taken for a warm reset (P12)\n"
    )


def test_tap() -> None:
    ran = archlbr("conform", "-k", PASSING, "--format", "tap")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "TAP version 14\n1..2\nok 1 - model smi-clears-lbren\nok 2 - model smi-saves\n"


def test_junit() -> None:
    ran = archlbr("conform", "-k", PASSING, "--format", "junit")
    assert (ran.status, ran.err) == (0, "")
    cases = [(case.get("classname"), case.get("name")) for case in ElementTree.fromstring(ran.out).iter("testcase")]
    assert cases == [("model", "smi-clears-lbren"), ("model", "smi-saves")]


def test_the_list_names_each_case_and_its_authority() -> None:
    ran = archlbr("conform", "--list", "-k", "smi-saves")
    assert (ran.status, ran.out) == (0, "smi-saves\t77\tSMRAM FF10H holds CTL\tP13\n")
    assert len(archlbr("conform", "--list").out.splitlines()) == len(CASES)


@pytest.mark.parametrize("form", ["text", "tap", "junit"])
def test_no_case_is_a_failure(form: str) -> None:
    ran = archlbr("conform", "-k", "no-such-case", "--format", form)
    assert (ran.status, ran.err) == (1, "archlbr: nothing was asked: no case has such a name\n")


def test_only_skips_are_a_failure() -> None:
    ran = archlbr("conform", "-k", "user-xsave")
    assert (ran.status, ran.err) == (1, "archlbr: nothing was asked: each case was skipped\n")
    assert "KVM_GET_XSAVE2 in the model" in ran.out


def test_a_required_target_s_skip_fails() -> None:
    words = ("conform", "-k", "user-xsave or smi-saves")
    assert archlbr(*words).status == 0
    ran = archlbr(*words, "--require", "model")
    assert (ran.status, ran.err) == (1, "")
    assert "FAIL model: user-xsave-without-lbrs: required, but: KVM_GET_XSAVE2 in the model\n" in ran.out


def test_a_recording_is_replayed(tmp_path: Path) -> None:
    kept = str(tmp_path / "model.json")
    live = archlbr("conform", "--record", kept, "-k", "migrate")
    assert live.status == 0
    assert archlbr("conform", "--target", f"recording:{kept}", "-k", "migrate") == live
    assert archlbr("conform", "--target", f"recording:{kept}", "-k", "smi-saves").status == 1


def test_a_failing_case_is_status_1(tmp_path: Path) -> None:
    kept = tmp_path / "model.json"
    archlbr("conform", "--record", str(kept), "-k", "smi-saves")
    kept.write_text(kept.read_text().replace('["Value","0x7"]', '["GeneralProtection","0xd"]'))
    ran = archlbr("conform", "--target", f"recording:{kept}", "-k", "smi-saves")
    assert (ran.status, ran.err) == (1, "")
    assert (
        "FAIL model: smi-saves: step 3, SMRAM FF10H: #GP, not 0x7\n     must hold: SMRAM FF10H holds CTL (P13)"
        in ran.out
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-k", "ctl and"], "-k 'ctl and': a name is missing; write names with and, or, not and parentheses"),
        (["-k", "(ctl"], "-k '(ctl': a parenthesis is not closed"),
        (["--target", "modle"], "--target modle: no such target; write model[:DESIGN], machine[:DESIGN], kvm[:DEVICE]"),
        (["--target", "model:v3"], "--target model:v3: no design v3; there are archlbr, series-v2"),
        (["--target", "kvm:"], "--target kvm:: nothing after the colon"),
        (["--target", "recording:nowhere.json"], "nowhere.json: No such file or directory; name a recording"),
        (["--target", "kvm:/dev/null"], "/dev/null: version: Inappropriate ioctl for device"),
        (["--require", "kvm"], "--require kvm: it is not asked; add --target kvm"),
        (["--target", "model", "--target", "machine", "--record", "x"], "--record keeps one target's answers"),
        (
            ["--record", "/dev/null"],
            "cannot write /dev/null: it is not a regular file; choose another name with --record",
        ),
        (["--format", "xml"], "Invalid value for '--format'"),
        (["smi-saves"], "Got unexpected extra argument"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words: list[str], said: str) -> None:
    ran = archlbr("conform", *words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"archlbr: {said}"), ran.err


def test_a_recording_of_another_version_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "model.json"
    archlbr("conform", "--record", str(kept), "-k", "smi-saves")
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"version": 9}))
    ran = archlbr("conform", "--target", f"recording:{kept}")
    assert ran == (2, "", f"archlbr: {kept}: a recording of version 9, not 1; record again\n")


def test_a_recording_that_is_no_text_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "model.json"
    kept.write_bytes(b"\xff\xfe")
    ran = archlbr("conform", "--target", f"recording:{kept}")
    assert ran == (2, "", f"archlbr: {kept}: no recording (byte 0 is no text); make one with conform --record\n")


def test_a_kvm_that_hangs_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "PROCESS", "tests.conformance.kvm_answers")
    monkeypatch.setattr(kvm, "SECONDS", 1.0)
    monkeypatch.setattr(Path, "exists", lambda _path: True)
    ran = archlbr("conform", "--target", "kvm:silent")
    assert ran == (2, "", "archlbr: silent: no answer to open within 1 seconds; ask another KVM\n")


def test_nothing_is_left_of_a_recording_that_failed(tmp_path: Path) -> None:
    kept = tmp_path / "kvm.json"
    assert archlbr("conform", "--target", "kvm:/dev/null", "--record", str(kept)).status == 2
    assert list(tmp_path.iterdir()) == []


# The kernel refuses to open it for writing, to root too (fs/kernfs/file.c, kernfs_fop_open).
READ_ONLY = "/sys/devices/system/cpu/online"


def test_a_device_without_permission_is_one_line() -> None:
    if not Path(READ_ONLY).exists():
        pytest.skip(f"no {READ_ONLY}")
    ran = archlbr("conform", "--target", f"kvm:{READ_ONLY}")
    assert ran == (2, "", f"archlbr: {READ_ONLY}: open: Permission denied; join its group, often kvm\n")
