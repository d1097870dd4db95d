"""Signal frames as a program sees them: what its handlers print natively and here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.recording import record, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests


def test_a_handler_finds_what_the_kernel_would_have_put_there(guests: Guests, tmp_path: Path) -> None:
    native = run([guests.frames])
    assert (native.status, native.out[-4:]) == (23, b"end\n")
    assert native.out.count(b"signal ") == 18
    assert record("-o", tmp_path / "perf.data", "--", guests.frames, interrupted=True) == native
