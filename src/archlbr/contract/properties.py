"""What must hold, one bit each: the properties of reference perf-kvm-contract.md, section D.

`judge` sets a bit in `World.seen` when a step breaks one; `check` finds the states that have it. L1 to L3 are
responses, decided over the whole graph.
"""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """A property; kind: always or response."""

    name: str
    kind: str
    says: str


CLAIMS: tuple[Claim, ...] = (
    Claim("S1", "always", "no record of the host's is ever returned to a guest"),
    Claim("S2", "always", "no record of one VM is ever returned to another"),
    Claim("S3", "always", "no write of a guest's reaches registers that the host owns"),
    Claim("S4", "always", "no side's branches are recorded under the other side's filter"),
    Claim("S5", "always", "whatever is recorded, its owner asked for"),
    Claim("G1", "always", "a guest loses a record only as the architecture says, or is told"),
    Claim("G2", "always", "a guest's enable bit changes only by the guest or by its own PMI"),
    Claim("H1", "always", "each host sample has fresh records or says that it has none"),
    Claim("H2", "always", "no sample of an event that excludes guests holds a guest's record"),
    Claim("H3", "always", "no sample taken in a guest holds a record of the host's"),
    Claim("H4", "always", "perf's view of the enable bit is the register's whenever host code runs with perf enabled"),
    Claim("H5", "always", "a call-stack event's frames come back with its task as they left"),
    Claim("M1", "always", "a vCPU finds its records on another pCPU as it left them"),
    Claim("M1-live", "always", "a guest finds its records after save and restore as it left them"),
    Claim("C1", "always", "the reference counts are 0 when the last user has gone"),
    Claim("L2-entry", "always", "no guest is entered while a request of perf's is unserved"),
    Claim("L1", "response", "a guest that wants the LBRs, and that nobody contends with, gets them"),
    Claim("L2", "response", "a host event that wants the LBRs gets them or is refused, whoever is scheduled"),
    Claim("L2-sched", "response", "the same, provided that each vCPU thread is scheduled again and again"),
    Claim("L3", "response", "no hand-over stays half done"),
)
BIT: dict[str, int] = {claim.name: 1 << number for number, claim in enumerate(CLAIMS)}
BY_NAME: dict[str, Claim] = {claim.name: claim for claim in CLAIMS}


def names_of(bits: int) -> tuple[str, ...]:
    """Return the properties whose bits are set, in the order of the table."""
    return tuple(name for name, bit in BIT.items() if bits & bit)
