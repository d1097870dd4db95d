"""The interleavings that have a name: where the search must find each, or must not.

I1 to I17, A1 to A5 and R1 to R9 are those of reference perf-kvm-contract.md, B and C; I6d is ours
(decision 031). Each is tied to the scenario in which nothing else breaks the property first, so that the shortest path
there is the interleaving.
"""

from __future__ import annotations

from typing import NamedTuple


class Named(NamedTuple):
    """An interleaving. found: 1 when the search finds it, 0 when it is shown not to exist under the bounds."""

    name: str
    design: str
    scenario: str
    claim: str
    says: str
    found: int = 1


NAMED: tuple[Named, ...] = (
    Named("I1", "vlbr-6.1", "steady", "S1", "the snapshot of vcpu_load turns recording on under the guest's ownership"),
    Named("I2", "vlbr-6.1", "opened", "H4", "the snapshot of vcpu_load turns the host's recording off"),
    Named(
        "I3", "vlbr-6.12", "steady-pinned", "S1", "a vLBR added as second user gets the host's records, nothing resets"
    ),
    Named("I4", "vlbr-6.12", "opened-pinned", "G1", "opening a pinned event wipes the guest's records"),
    Named("I5", "vlbr-6.12", "failing", "S2", "a vCPU without vLBR records, and the next restore is skipped"),
    Named("I5b", "vlbr-6.12", "neighbours", "S2", "a lazy release leaves records, and the next restore is skipped"),
    Named("I6", "vlbr-6.12", "toggled", "S1", "the host records in between, and the restore is skipped"),
    Named(
        "I6c",
        "vlbr-6.12",
        "neighbours-traced",
        "S1",
        "I5b with a host event that stays: under these bounds I15's drift saves the releasing vCPU and hides it",
        found=0,
    ),
    Named(
        "I6b", "vlbr-6.12", "recycled", "S2", "a new perf context at an old one's address passes for it, log_id and all"
    ),
    Named(
        "I6d",
        "vlbr-6.12",
        "callstack",
        "H2",
        "as I5b and I6, towards the host: a task's call-stack event skips its restore and finds the guest's records",
    ),
    Named("I7", "vlbr-6.12", "alone", "G1", "a lazy release loses records that the guest has not read"),
    Named("I8", "vlbr-6.12", "denied", "L1", "an event in ERROR is never tried again"),
    Named("I9", "vlbr-6.12", "freeze", "H4", "a freeze before the snapshot is restored after the NMI has thawed"),
    Named("I10", "vlbr-6.12", "freeze-guest", "G2", "a host counter's overflow clears the guest's enable bit"),
    Named("I11", "vlbr-6.12", "failing-traced", "H2", "the guest's enable bit is loaded though the host owns the LBRs"),
    Named("I11b", "vlbr-6.12", "toggled", "H2", "the host event comes back and finds the guest's records"),
    Named("I12", "vlbr-6.12", "guest-sampled", "H3", "a PMI in the guest is given the host's records"),
    Named("I13", "vlbr-6.12", "ioctl", "S1", "an ioctl from another thread reads the LBRs of its own pCPU"),
    Named("I14", "vlbr-6.12", "nested", "G1", "L2's enable bit makes KVM release L1's event"),
    Named("I15", "vlbr-6.12", "lend", "C1", "the call-stack count is kept by the last adder's filter"),
    Named("I16", "vlbr-6.12", "hole", "G1", "saving stops at the first empty record"),
    Named("I17", "vlbr-6.12", "live", "M1-live", "no record is in the save list"),
    Named("A1", "series-v2", "steady", "H4", "VM exit clears the host's LBR_CTL for good"),
    Named("A2", "series-v2", "xsaves", "S1", "XSAVES reads the host's records"),
    Named("A3", "series-v2", "nested-traced", "H2", "L2 runs with the host's LBR_CTL"),
    Named("A4", "series-v2", "smm", "G2", "RSM sets LBREn though it was 0"),
    Named("A5", "series-v2", "depth", "S3", "a DEPTH write of the guest's wipes the host's records"),
    Named("R1", "request", "opened", "L2-entry", "a request after the look at requests is not seen at VM entry"),
    Named("R2", "request", "roam-traced", "L2-sched", "the flag leaves with the vCPU, and the pCPU's event waits"),
    Named("R3", "request", "lend", "L2", "the vCPU is switched out with its request unserved"),
    Named("R4", "request", "user", "L2", "the vCPU is in user space with its request unserved"),
    Named(
        "R5", "request", "toggled", "S1", "a request that was withdrawn is served later and saves the host's records"
    ),
    Named("R6", "request", "lend", "H1", "an NMI while a request is pending reports an old stack"),
    Named("R7", "request", "toggled", "L1", "the host's coming and going starves the guest"),
    Named("R8", "request", "steady", "H2", "the guest's enable bit is loaded though the host owns the LBRs"),
    Named(
        "R9",
        "request",
        "opened",
        "R9",
        "host code evicts the guest's records before the request is served: not while VM exit clears the enable bit",
        found=0,
    ),
)


def names_for(design: str, claim: str) -> tuple[str, ...]:
    """Return the names of the interleavings that break a property of a design."""
    return tuple(named.name for named in NAMED if (named.design, named.claim, named.found) == (design, claim, 1))
