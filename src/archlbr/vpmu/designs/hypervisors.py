"""A design as a machine runs it: the rules of its registers, and how it shares them.

`machine` builds a guest's vPMU from the one and drives its processor by the other; `cli` takes the name. The merged
designs know only model-specific LBRs and show a PMU of version 2 (kvm_init_pmu_capability, arch/x86/kvm/pmu.c); their
registers' rules are those that the series left as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.vpmu.designs import archlbr_sharing, mediated, mediated_lbr, request, series_v2_sharing, vlbr
from archlbr.vpmu.designs.archlbr import ARCHLBR
from archlbr.vpmu.designs.series_v2 import SERIES_V2
from archlbr.vpmu.designs.sharing import VLBR, Sharing

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design

# vLBR guests have LBRs only with a format in PERF_CAPABILITIES (vmx_get_perf_capabilities, intel_pmu_refresh).
_MERGED = SERIES_V2._replace(name="vlbr", wants_format=1)
# A design whose sharing does not mask the enable bit (R8) loads it whoever owns the LBRs.
_UNMASKED = ARCHLBR._replace(name="request", loads_unowned=1)


class Hypervisor(NamedTuple):
    """registers: what the vPMU does at each register. sharing: when the LBRs are whose."""

    registers: Design
    sharing: Sharing

    @property
    def name(self) -> str:
        """The design's name."""
        return self.sharing.name

    @property
    def pmu_version(self) -> int:
        """The highest PMU version that guests are shown."""
        return 2 if self.sharing.family == VLBR else 5


HYPERVISORS: dict[str, Hypervisor] = {
    hypervisor.name: hypervisor
    for hypervisor in (
        Hypervisor(ARCHLBR, archlbr_sharing.ARCHLBR),
        Hypervisor(_MERGED, vlbr.VLBR_6_1),
        Hypervisor(_MERGED, vlbr.VLBR_6_12),
        Hypervisor(SERIES_V2, series_v2_sharing.SERIES_V2),
        Hypervisor(_UNMASKED, request.REQUEST_NAIVE),
        Hypervisor(ARCHLBR, mediated.MEDIATED),
        Hypervisor(ARCHLBR, mediated_lbr.MEDIATED_LBR),
    )
}
ARCHLBR_HYPERVISOR = HYPERVISORS["archlbr"]
