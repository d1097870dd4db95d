"""`mediated`: perf hands the PMU over at entry and exit and refuses events that would count in the guest; no LBRs.

Authority: reference perf-kvm-contract.md C3: kvm_mediated_pmu_load() and kvm_mediated_pmu_put(),
perf_load_guest_context() (merged for 6.20). host_debugctl is read before the load, so what VM exit is followed by is
the stale enable bit: without guest LBRs the reference calls that harmless. A prediction until somebody has seen it on
hardware.
"""

from __future__ import annotations

from archlbr.vpmu.designs.sharing import HANDOVER, Sharing

MEDIATED = Sharing(
    "mediated",
    HANDOVER,
    exposes=0,
    refuses_guest_events=1,
    lost=frozenset({"load", "save", "start-wipe", "load-select", "lazy"}),
)
