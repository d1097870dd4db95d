"""How the hypervisor virtualizes the LBRs, as named designs of one kind."""

from archlbr.vpmu.designs.archlbr import ARCHLBR
from archlbr.vpmu.designs.names import DEFAULT, DESIGNS
from archlbr.vpmu.designs.protocol import Defect, Design
from archlbr.vpmu.designs.series_v2 import DEFECTS, SERIES_V2

__all__ = ["ARCHLBR", "DEFAULT", "DEFECTS", "DESIGNS", "SERIES_V2", "Defect", "Design"]
