"""The designs by name, in the order in which they are listed; the first is the default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.vpmu.designs.archlbr import ARCHLBR
from archlbr.vpmu.designs.series_v2 import SERIES_V2

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design

DESIGNS: dict[str, Design] = {design.name: design for design in (ARCHLBR, SERIES_V2)}
DEFAULT: Design = ARCHLBR
