"""Seeded bugs: `archlbr` with one step of its hand-over left out or done wrongly, and the property that falls.

Each must be found by `check` in its scenario; that is what makes the step necessary, and the property not vacuous. The
design's decision record, docs/decisions/030, goes through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.errors import InputError
from archlbr.vpmu.designs.archlbr_sharing import ARCHLBR

if TYPE_CHECKING:
    from archlbr.vpmu.designs.sharing import Sharing


class Bug(NamedTuple):
    """A step that is wrong; claim: the property that falls."""

    name: str
    claim: str
    scenario: str
    says: str


BUGS: tuple[Bug, ...] = (
    # entry
    Bug("stop", "S5", "lend", "entry does not stop the host's recording before it loads"),
    Bug("load", "S1", "lend", "entry leaves the host's records in the registers"),
    Bug("load-wipes", "G1", "lend", "entry wipes rather than loads"),
    Bug("load-select", "S4", "lend", "entry leaves the host's filter"),
    Bug("load-owner", "H2", "lend", "entry does not note the new owner; an NMI reads the guest's records"),
    Bug("resident-nobody", "S2", "neighbours", "entry takes registers that nobody owns for its own"),
    Bug("vmenter-enable", "G1", "lend", "VM entry does not load the guest's enable bit"),
    Bug("load-empty", "S3", "xsaves", "entry loads nothing for a vCPU without records; its XRSTORS reaches the host's"),
    Bug("vmenter-muted", "L1", "steady", "VM entry does not load the guest's enable bit while a host event runs"),
    Bug("vmenter-l2", "S5", "nested", "VM entry loads L1's enable bit for L2"),
    # exit
    Bug("exit-clear", "S5", "lend", "VM exit does not clear the enable bit"),
    Bug("exit-wants", "H4", "lend", "exit leaves the guest's records though the host's event runs"),
    Bug("exit-owner", "H2", "lend", "exit notes the new owner before the wipe; an NMI reads the guest's records"),
    Bug("save", "G1", "lend", "exit does not save the guest's records"),
    Bug("save-late", "G1", "lend", "exit wipes first and saves then"),
    Bug("start-wipe", "H2", "lend", "exit does not wipe the guest's records"),
    Bug("start-enable", "H4", "lend", "exit does not give the host its enable bit back"),
    Bug("start-select", "S4", "lend", "exit leaves the guest's filter"),
    Bug("reenter-done", "S5", "fastpath", "the fast path enters again after the hand-over, and loads nothing"),
    # a claim by IPI
    Bug("claim-save", "G1", "lend", "a claim does not save the guest's records"),
    Bug("claim-wipe", "H2", "lend", "a claim does not wipe the guest's records"),
    Bug("claim-owner", "S1", "lend", "a claim leaves the guest the owner; the host's records are saved as the guest's"),
    Bug("claim-early", "H2", "lend", "a claim notes the host as owner too early; an NMI reads the guest's records"),
    Bug("claim-half", "H4", "lend", "a claim ends before the host's recording is on"),
    Bug("claim-stuck", "L3", "lend", "the second half of a claim never comes"),
    Bug("claim-defer", "L2", "lend", "a claim waits for somebody to serve it, and nobody does"),
    Bug("disable-enable", "S5", "lend", "closing the event leaves recording on"),
    Bug("task-stop", "S5", "lend-task", "switching the event's task out leaves recording on"),
    Bug("frames", "H5", "callstack", "a call-stack event starts empty when its task comes back"),
    # leaving the pCPU
    Bug("put-save", "G1", "neighbours", "vcpu_put does not save the guest's records"),
    Bug("put-owner", "M1", "roam", "vcpu_put leaves the guest the owner; it returns to what another pCPU outdated"),
    Bug("put-user", "M1-live", "ioctl", "the return to user space does not put; KVM_GET_MSRS reads an old copy"),
    Bug("get-here", "M1-live", "ioctl", "KVM_GET_MSRS reads the pCPU that it runs on"),
    Bug("migrate-records", "M1-live", "live", "the records are in no save list"),
    Bug("migrate-enable", "G2", "live", "the enable bit is in no save list"),
    # NMI, PMI
    Bug("nmi-owner", "H2", "lend", "an NMI reads the registers whoever owns them"),
    Bug("nmi-stale", "H1", "lend", "an NMI during a hand-over reports an old stack instead of none"),
    Bug("nmi-guest", "H2", "freeze", "an NMI that ended the guest's run reads its registers"),
    Bug("nmi-late", "H3", "guest-sampled", "an NMI that ended the guest's run is handled after the hand-over"),
    Bug("freeze-loaded", "G2", "freeze-guest", "the guest's freeze bit is loaded; a host overflow clears LBREn"),
    # SMM, nested
    Bug("rsm-sets", "G2", "smm", "RSM sets LBREn whatever SMRAM holds"),
    Bug("nest-drops", "G1", "nested", "running L2 drops L1's records"),
    Bug("nest-clears", "G2", "nested", "L2's exit takes L2's enable bit for L1's"),
)  # fmt: skip
BY_NAME = {bug.name: bug for bug in BUGS}


def seeded(name: str) -> Sharing:
    """Return `archlbr` with a bug; its name is `archlbr+BUG`. InputError for a name that is none."""
    if name not in BY_NAME:
        raise InputError(f"unknown seeded bug {name!r}: use one of {', '.join(BY_NAME)}")
    if name == "rsm-sets":
        return ARCHLBR._replace(name=f"archlbr+{name}", rsm_sets=1)
    return ARCHLBR._replace(name=f"archlbr+{name}", lost=frozenset({name}))
