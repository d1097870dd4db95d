"""All tables in one, in the order they are asked and printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.conformance.cases import (
    acceptance,
    branches,
    capabilities,
    controls,
    entries,
    enumeration,
    events,
    gating,
    migration,
    nested,
    ownership,
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
    *branches.CASES,
    *entries.CASES,
    *ownership.CASES,
    *events.CASES,
    *xsave.CASES,
    *migration.CASES,
    *nested.CASES,
)
