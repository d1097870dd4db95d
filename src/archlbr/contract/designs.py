"""The designs by name, and the model of a design in a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract.actors import HostModel
from archlbr.errors import InputError
from archlbr.vpmu.designs.archlbr_sharing import ARCHLBR
from archlbr.vpmu.designs.mediated import MEDIATED
from archlbr.vpmu.designs.mediated_lbr import MEDIATED_LBR
from archlbr.vpmu.designs.request import REQUEST_NAIVE
from archlbr.vpmu.designs.series_v2_sharing import SERIES_V2
from archlbr.vpmu.designs.vlbr import VLBR_6_1, VLBR_6_12

if TYPE_CHECKING:
    from archlbr.contract.world import Scenario
    from archlbr.vpmu.designs.sharing import Sharing

DESIGNS: dict[str, Sharing] = {
    design.name: design for design in (VLBR_6_1, VLBR_6_12, SERIES_V2, REQUEST_NAIVE, MEDIATED, MEDIATED_LBR, ARCHLBR)
}


def named(name: str) -> Sharing:
    """Return a design by its name; InputError for a name that is none."""
    found = DESIGNS.get(name)
    if found is None:
        raise InputError(f"unknown design {name!r}: use one of {', '.join(DESIGNS)}")
    return found


def model(design: Sharing, scenario: Scenario) -> HostModel:
    """Return the model of a design in a scenario."""
    return HostModel(design, scenario)
