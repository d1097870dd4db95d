"""What the rooms of the tests share: the compiled guests and the single-stepping oracle."""

from __future__ import annotations

import pytest

from tests.guests.build import Guests
from tests.oracle.stepper import Oracle


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Guests:
    return Guests(tmp_path_factory.mktemp("guests"))


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("oracle"))
