"""`mediated-lbr`: `mediated` with the LBR registers added to what is loaded and saved, naively.

Authority: reference perf-kvm-contract.md C3, the hypothetical M+: the stale order of snapshot and load stays, and
nothing wipes the guest's records before the host's event comes back.
"""

from __future__ import annotations

from archlbr.vpmu.designs.sharing import HANDOVER, Sharing

MEDIATED_LBR = Sharing(
    "mediated-lbr", HANDOVER, refuses_guest_events=1, architectural=1, lost=frozenset({"start-wipe", "lazy"})
)
