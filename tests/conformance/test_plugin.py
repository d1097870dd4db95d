"""The pytest plugin, in a pytest of its own, beside a test that is not ours."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "archlbr.pytest_plugin", "-p", "no:cacheprovider", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_of_the_vmm.py").write_text("def test_of_the_vmm():\n    assert True\n")
    return tmp_path


def test_cases_run_beside_the_vmm_s_own_tests(folder: Path) -> None:
    ran = run_pytest(folder, "--archlbr-target=model", "-q", "-k", "of_the_vmm or smi", "--junitxml=out.xml")
    assert ran.returncode == 0, ran.stdout
    cases = ElementTree.parse(folder / "out.xml").iter("testcase")
    assert {(case.get("classname"), case.get("name")) for case in cases} == {
        ("test_of_the_vmm", "test_of_the_vmm"),
        ("model", "smi-clears-lbren"),
        ("model", "smi-saves"),
        ("model", "smi-keeps-records"),
    }


def test_a_known_difference_passes_with_its_reason(folder: Path) -> None:
    ran = run_pytest(folder, "--archlbr-target=model:series-v2", "-q", "-k", "init-keeps-ctl", "--junitxml=out.xml")
    assert ran.returncode == 0, ran.stdout
    (case,) = ElementTree.parse(folder / "out.xml").iter("testcase")
    assert {one.get("name"): one.get("value") for one in case.iter("property")} == {
        "requirement": "INIT keeps CTL",
        "cite": "P6, SC P12",
        "known": "INIT is taken for a warm reset (P12)",
    }


def test_what_a_target_lacks_is_a_skip_or_a_failure(folder: Path) -> None:
    words = ("--archlbr-target=model", "-q", "-rs", "-k", "user-xsave")
    skipped = run_pytest(folder, *words)
    assert (skipped.returncode, "KVM_GET_XSAVE2 in the model" in skipped.stdout) == (0, True)
    required = run_pytest(folder, *words, "--archlbr-require=model")
    assert (required.returncode, "KVM_GET_XSAVE2 in the model" in required.stdout) == (1, True)


def test_a_failing_case_says_what_must_hold(folder: Path) -> None:
    recorded = folder / "model.json"
    made = subprocess.run(
        [sys.executable, "-m", "archlbr", "conform", "-k", "smi-saves", "--record", str(recorded)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0
    recorded.write_text(recorded.read_text().replace('["Value","0x7"]', '["Value","0x6"]'))
    ran = run_pytest(folder, f"--archlbr-target=recording:{recorded}", "-q", "-k", "smi-saves")
    assert ran.returncode == 1
    assert "step 3, SMRAM FF10H: 0x6, not 0x7\nmust hold: SMRAM FF10H holds CTL (P13)" in ran.stdout


def test_without_a_target_nothing_is_added(folder: Path) -> None:
    ran = run_pytest(folder, "-q")
    assert (ran.returncode, ran.stdout.splitlines()[-1].split()[:2]) == (0, ["1", "passed"])


def test_an_unknown_target_is_a_usage_error(folder: Path) -> None:
    ran = run_pytest(folder, "--archlbr-target=modle")
    assert ran.returncode == 4
    assert "--target modle: no such target" in ran.stdout + ran.stderr
