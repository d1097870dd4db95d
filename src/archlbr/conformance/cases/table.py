"""All tables in one, in the order they are asked and printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.conformance.cases import (
    acceptance,
    branches,
    capabilities,
    controls,
    depths,
    entries,
    enumeration,
    events,
    gating,
    migration,
    nested,
    ownership,
    resets,
    xsave,
)

if TYPE_CHECKING:
    from archlbr.conformance.case import Case

CASES: tuple[Case, ...] = (
    *enumeration.CASES,
    *acceptance.CASES,
    *capabilities.CASES,
    *gating.CASES,
    *controls.CASES,
    *depths.CASES,
    *branches.CASES,
    *entries.CASES,
    *ownership.CASES,
    *events.CASES,
    *resets.CASES,
    *xsave.CASES,
    *migration.CASES,
    *nested.CASES,
)
