"""QEMU with our plugin against the native single-stepper: the cases of `tests.oracle.programs`, branch by branch."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.oracle.programs import CASES, Case, assert_as_stepped

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests
    from tests.oracle.stepper import Oracle

pytestmark = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_branch_is_the_one_the_processor_took(case: Case, guests: Guests, oracle: Oracle, tmp_path: Path) -> None:
    assert_as_stepped(case, guests, oracle, tmp_path / "trace", "--engine", "qemu")
