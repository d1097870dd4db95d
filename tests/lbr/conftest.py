from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf1C
from archlbr.lbr.state import architectural, legacy
from tests.lbr.parts import Native, Pure


@pytest.fixture(params=[Pure, Native], ids=["pure", "native"])
def make(request):
    """Build a part: CPUID.1CH as (eax, ebx, ecx) and a PMU version, or a legacy format and depth."""

    def build(leaf=(0x4000000B, 7, 0x000F0007), pmu=5, **options):
        return request.param(architectural(Leaf1C(*leaf), pmu, **options))

    def build_legacy(form=5, depth=16, pmu=2, **options):
        return request.param(legacy(form, depth, pmu, **options))

    build.legacy = build_legacy
    return build


@pytest.fixture
def part(make):
    """A Lion Cove with transactions: depths 8, 16, 32, every filter, PMU version 5."""
    return make(tsx=True)
