"""lbr, vpmu and perf composed: one state, one pure step, requests between KVM and perf routed as values.

    state = initial(banks, vcpus)
    after, told = step(sharing, Setting(events), state, ("vmenter", 0, 0))

sharing: a design of `vpmu.designs`, such as `archlbr_sharing.ARCHLBR`. banks: the registers of each pCPU, `lbr.bank`:
tags to explore, `lbr.facility_bank.FacilityBank` to run. An action is its name (an `on_NAME` of `handover`, `vlbr` or
`request`), its pCPU, and a thread or vCPU where it needs one; the caller keeps to the phases of `contract.menu`.
"""

from archlbr.host.sampling import sample
from archlbr.host.state import Action, Cpu, Host, Moved, Setting, Told, initial
from archlbr.host.step import step

__all__ = ["Action", "Cpu", "Host", "Moved", "Setting", "Told", "initial", "sample", "step"]
