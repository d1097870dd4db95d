"""The same unmodified kernel on a processor with model-specific LBRs: its own perf samples their branch stack.

One boot, as in `test_linux`; what perf recorded is held against the trace from outside, sample by sample.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.machine.models import SKYLAKE_SERVER
from archlbr.profile.edges import count_edges
from archlbr.profile.overlap import overlap
from tests.guests.linux import FOLDER
from tests.machine.guest_session import OTHER, PERIOD, at_nmis, boot, handler_of_nmis, samples

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not (FOLDER / "guest.cpio").exists(), reason="needs build/guest: make guest fetches a kernel and busybox with apt"
)


def test_perf_record_b_works_on_skylake_s_lbrs(tmp_path: Path) -> None:
    guest = boot(tmp_path, {"edges": (f"-b -e branches:u -c {PERIOD}", "interpreter 1")}, SKYLAKE_SERVER)
    if "perf: not found" in guest.console:
        pytest.skip("needs perf in the guest: install linux-perf and make guest again")
    assert re.findall(r"^\[(depth|flag)\](.*?)\r?$", guest.console, re.MULTILINE) == [("depth", " 32"), ("flag", " ")]
    (told,) = re.findall(r"^\[ +[\d.]+\] Performance Events: (.*)\r?$", guest.console, re.MULTILINE)
    assert told.startswith("Skylake events, 32-deep LBR, full-width counters")
    rows = np.concatenate(guest.traces["edges"])
    found = samples(tmp_path / "edges.data")
    places = at_nmis(rows, handler_of_nmis([rows]))
    assert len(found) == len(places) > 100
    for place, sample in zip(places, found, strict=True):
        # A return from the kernel takes an entry, too, and perf leaves it out: one for each way in.
        entries = rows[max(0, place - 32) : place][::-1]
        expected = [(source, target) for source, target, kind in entries.tolist() if kind != OTHER]
        assert sample == (rows[place, 0], expected)
    near = rows[rows[:, 2] != OTHER]
    records = np.array([record for sample in found for record in sample.records], np.uint64)
    assert overlap(count_edges(near[:, 0], near[:, 1]), count_edges(records[:, 0], records[:, 1])) > 0.9
