"""`series-v2`: how the fifteen patches share the LBRs; the vLBR event again, with Architectural LBR's own gaps.

Authority: reference perf-kvm-contract.md C1 (A1 to A5) and kvm-series.md. What is read from a patch and not confirmed
by a merged tree stays UNCONFIRMED: that no other patch restores the host's LBR_CTL (A1), and that MSR bitmaps do not
cover XSAVES (A2). VM entry loads LBR_CTL and VM exit clears it for every vCPU (patch 10). The RSM rule is version 12's,
patch 14 (A4). `series_v2` has the register rules of the same patches.
"""

from __future__ import annotations

from archlbr.vpmu.designs.sharing import VLBR, Sharing

SERIES_V2 = Sharing(
    "series-v2", VLBR, restores_host=0, nmi_first=1, architectural=1, raw_depth=1, l2_open=1, rsm_sets=1
)
