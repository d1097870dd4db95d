"""`archlbr`: ours. The registers have one owner a pCPU, and change hands only where nothing but an NMI can cut in.

In the guest the vCPU owns them, always; in the host, perf does as soon as it has an event that wants them, and until
then they stay as the guest left them, with recording off. Docs/decisions/030 says why each step is needed, and which
property falls without it.
"""

from __future__ import annotations

from archlbr.vpmu.designs.sharing import HANDOVER, Sharing

ARCHLBR = Sharing("archlbr", HANDOVER, restores_host=0, architectural=1)
