"""The guest of the XSAVE tests: one board a module, emptied for each test."""

from __future__ import annotations

import pytest

from tests.machine.areas import Guest, emptied, prepared


@pytest.fixture(scope="module")
def shared() -> Guest:
    return prepared()


@pytest.fixture
def guest(shared: Guest) -> Guest:
    """A guest with XCR0 = 3, XSS[15] set, and nothing in its LBRs."""
    return emptied(shared)
