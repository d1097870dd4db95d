"""How near a sampled profile comes to the truth: against the exact trace of the same program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr, overlap, run, script_edges, stats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

BRANCHES = 10**6


@pytest.fixture(scope="module")
def exact(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], int]:
    """How often each taken branch of two rounds of the kernel occurs, linked at fixed addresses."""
    out = tmp_path_factory.mktemp("exact") / "trace"
    ended = run(archlbr("trace", "-o", out, "--", guests.kernel_fixed, "2"))
    assert ended == run([guests.kernel_fixed, "2"])
    counts: dict[str, int] = {}
    with out.open() as lines:
        for line in lines:
            if line[0] != "#":
                edge = line.split(None, 1)[1]
                counts[edge] = counts.get(edge, 0) + 1
    edges: dict[tuple[int, int], int] = {}
    for edge, count in counts.items():
        source, target, _ = edge.split()
        edges[int(source, 16), int(target, 16)] = count
    return edges


def own(edges: dict[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """Keep the branches inside the program: libraries lie elsewhere in each run."""
    return {edge: count for edge, count in edges.items() if max(edge) < 0x500000}


@pytest.mark.parametrize("period", [101, 1009])
def test_a_sampled_profile_overlaps_the_exact_trace(
    period: int, guests: Guests, exact: dict[tuple[int, int], int], tmp_path: Path
) -> None:
    assert sum(own(exact).values()) > BRANCHES
    out = tmp_path / "script"
    run(archlbr("record", "-c", str(period), "--format", "script", "-o", out, "--", guests.kernel_fixed, "2"))
    sampled = script_edges(out.read_text())
    assert set(own(sampled)) <= set(own(exact))
    assert overlap(own(exact), own(sampled)) >= 0.98


def test_the_statistics_count_every_branch(guests: Guests, tmp_path: Path) -> None:
    program = guests.kmini
    out = tmp_path / "trace"
    run(archlbr("trace", "-o", out, "--", program))
    taken = sum(not line.startswith("#") for line in out.read_text().splitlines())
    ended = run(archlbr("record", "--stats", "-c", "97", "-o", tmp_path / "perf.data", "--", program))
    told = stats(ended.err)
    assert set(told) >= {"instructions", "branches", "samples", "seconds", "engine"}
    assert taken == 15141
    assert int(told["samples"]) == int(told["branches"]) // 97
    assert int(told["branches"]) >= taken
