"""Images of kvm-unit-tests, unmodified: each that the user has, on the machine, by its exit status and its lines.

The images are not ours and not here: ARCHLBR_KVM_UNIT_TESTS names the folder that holds them (docs/guide/
kvm-unit-tests.md). What is known to fail is named below with the line that says so; any other FAIL fails here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = "ARCHLBR_KVM_UNIT_TESTS"
PASSED, SKIPPED, UNHANDLED = 1, 77, 255  # (code << 1) | 1 through port F4H: 0, 77 >> 1, 127 of abort()
SECONDS = 900


class Expected(NamedTuple):
    """How an image is run, and what it may say: the FAIL lines that are known, and how it ends besides."""

    model: str = "sapphire-rapids"
    failing: tuple[str, ...] = ()
    endings: tuple[int, ...] = (PASSED, SKIPPED)


# docs/guide/kvm-unit-tests.md says why.
EXPECTED = {
    "pmu": Expected("skylake-server"),
    "pmu_lbr": Expected("skylake-server"),
    "debug": Expected(failing=(r"Single-step #DB w/ MOVSS blocking and DR7\.GD=1",), endings=(UNHANDLED,)),
    "syscall": Expected(endings=(UNHANDLED,)),
}


def expected_of(name: str) -> Expected:
    """Return what an image is expected to do, by its name without a commit at its end."""
    return EXPECTED.get(re.split(r"[._](?=[0-9a-f]{8,}$)", name)[0], Expected())


def images() -> list[Path]:
    """Return the images of the folder, an ELF file only where there is no flat one of its name."""
    named = os.environ.get(FOLDER)
    if not named:
        return []
    found = sorted(Path(named).glob("*.flat"))
    flat = {image.stem for image in found}
    return found + sorted(image for image in Path(named).glob("*.elf") if image.stem not in flat)


def run(image: Path, model: str) -> tuple[int, str]:
    """Run an image as `archlbr run` does; return its exit status and what its serial port said."""
    command = [sys.executable, "-m", "archlbr", "run", "--kernel", str(image), "--cpu", model]
    ran = subprocess.run(
        [*command, "--timeout", str(SECONDS)], capture_output=True, text=True, timeout=SECONDS + 60, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


def judge(name: str, status: int, said: str) -> list[str]:
    """Return what an image said or did that is not expected of it."""
    expected = expected_of(name)
    known = [re.compile(pattern) for pattern in expected.failing]
    failed = [line for line in said.splitlines() if line.startswith("FAIL")]
    wrong = [line for line in failed if not any(pattern.search(line) for pattern in known)]
    # A test that failed ends with code 1: that is told by its lines.
    if status not in expected.endings and not (status == 3 and failed and not wrong):
        wrong.append(f"exit status {status}: {said.splitlines()[-1] if said else 'nothing was said'}")
    return wrong


@pytest.mark.parametrize("image", images() or [None], ids=lambda image: "none" if image is None else image.name)
def test_an_image_says_what_is_expected(image: Path | None) -> None:
    if image is None:
        pytest.skip(
            f"no images of kvm-unit-tests: build them (./configure && make) and let {FOLDER} name the folder x86 of it"
        )
    status, said = run(image, expected_of(image.stem).model)
    assert judge(image.stem, status, said) == []


def test_what_is_expected_is_judged() -> None:
    gd = "FAIL: Single-step #DB w/ MOVSS blocking and DR7.GD=1"
    assert judge("msr", 1, "PASS: EFER\nSUMMARY: 1 tests\n") == []
    assert judge("pmu_lbr", 77, "SKIP: no LBR\n") == judge("pmu_lbr_dd602b6f", 1, "PASS: x\n") == []
    assert judge("msr", 3, "FAIL: EFER\n") == ["FAIL: EFER", "exit status 3: FAIL: EFER"]
    assert judge("debug", 255, f"{gd}\nUnhandled\n") == judge("debug", 3, f"{gd}\n") == []
    assert judge("debug", 255, "FAIL: icebp\n") == ["FAIL: icebp"]
    assert judge("apic", 124, "") == ["exit status 124: nothing was said"]
