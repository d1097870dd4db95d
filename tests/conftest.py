"""What the rooms of the tests share: the compiled guests and the single-stepping oracle."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.guests.build import Guests
from tests.oracle.stepper import Oracle

# What a test says depends on the tree alone. `pytest --hypothesis-profile default` draws anew, and looks at the clock.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Take Ctrl-C as at a terminal: a script's background ignores it, and what is started here would, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Guests:
    return Guests(tmp_path_factory.mktemp("guests"))


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("oracle"))
