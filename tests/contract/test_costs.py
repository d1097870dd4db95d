"""What the designs cost: counted by the model, a few worked out by hand, and decision 030's table held to it."""

from __future__ import annotations

from pathlib import Path

from archlbr.contract.costs import Accesses, as_markdown, costs
from archlbr.contract.designs import named

DECISION = Path(__file__).parents[2] / "docs" / "decisions" / "030-how-archlbr-shares-the-lbrs.md"


def test_decision_030_has_the_table_that_the_model_counts() -> None:
    lines = DECISION.read_text(encoding="utf-8").splitlines()
    start = lines.index(as_markdown()[0])
    assert lines[start : start + len(as_markdown())] == as_markdown()


def test_archlbr_pays_nothing_at_an_entry_or_exit_that_nobody_contends_for() -> None:
    found = costs(named("archlbr"), 0)
    assert (found["entry"], found["exit"]) == (Accesses(), Accesses())
    # XSAVES at vcpu_put, XRSTORS at the next entry.
    assert found["switch out"] == Accesses(xsaves=1)
    assert found["switch in, with its entry"] == Accesses(xrstors=1)
    # A claim: XSAVES, then DEPTH and LBR_CTL.
    assert found["flexible event opened"] == Accesses(wrmsr=2, xsaves=1)
    assert found["flexible event opened"].cycles == 800


def test_archlbr_hands_over_at_each_entry_and_exit_under_a_host_event() -> None:
    found = costs(named("archlbr"), 1)
    assert found["entry"] == Accesses(wrmsr=1, xrstors=1)
    assert found["exit"] == Accesses(wrmsr=2, xsaves=1)
    assert found["switch out"] == Accesses()


def test_the_vlbr_moves_each_register_at_a_switch() -> None:
    found = costs(named("vlbr-6.12"), 0)
    # 32 of FROM, TO and INFO, with TOS and LBR_SELECT. Coming in: a look at FROM, and the snapshot at the entry.
    assert found["switch out"] == Accesses(rdmsr=98)
    assert found["switch in, with its entry"] == Accesses(rdmsr=2, wrmsr=98)
    # intel_pmu_lbr_reset(): each register and LBR_SELECT.
    assert found["pinned event opened"] == Accesses(wrmsr=97)
    assert str(found["pinned event opened"]) == "97 WRMSR (9,700)"
    assert str(Accesses()) == "0"
