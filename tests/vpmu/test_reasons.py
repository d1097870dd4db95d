"""What a guest, a VMM and a user are told, word for word."""

from __future__ import annotations

import hashlib
import struct

import pytest

from archlbr.arch.cpuid import Leaf0D1, Leaf0DComponent, Leaf07, Leaf1C
from archlbr.errors import InputError, InternalError
from archlbr.vpmu import nested, vmcs
from archlbr.vpmu.actions import (
    DumpVmcs,
    HostRead,
    HostWrite,
    NestedEntry,
    Refused,
    Release,
    SchedOut,
    SetCpuid,
    Text,
)
from archlbr.vpmu.cpuid import reason
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from archlbr.vpmu.image import WORDS, unpack
from archlbr.vpmu.ownership import deny
from archlbr.vpmu.state import FAILS
from archlbr.vpmu.step import step
from tests.vpmu.parts import CTL, DEBUGCTL, DEPTH, INFO, OFF, SELECT, SPR, Vcpu, leaves, old_part


def without(**changed: object) -> str:
    v = Vcpu(ARCHLBR)
    return reason(ARCHLBR, v.platform, leaves()._replace(**changed), 0x3F, 5)


REASONS: list[tuple[dict[str, object], str]] = [
    ({}, ""),
    ({"leaf07": Leaf07()}, "CPUID.7.EDX[19] is 0"),
    ({"leaf1c": None}, "CPUID.1CH is not there, or offers no depth"),
    ({"leaf1c": Leaf1C(0, 7, 7, 0)}, "CPUID.1CH is not there, or offers no depth"),
    ({"leaf1c": Leaf1C(0x80, 7, 7, 0)}, "CPUID.1CH offers depths (64,), the host (8, 16, 32)"),
    (
        {"components": ((15, Leaf0DComponent(800, 0, 1, 0)),)},
        "CPUID.0DH.1:ECX[15] is 1, and 0DH.15 says 800 bytes instead of 808",
    ),
    ({"leaf0d1": Leaf0D1(0xF, 0, 0, 0)}, "CPUID.0DH.15 describes the LBRs, and 0DH.1:ECX[15] is 0"),
    ({"leaf0d1": Leaf0D1(7, 0, 0x8000, 0)}, "CPUID.0DH.1:ECX[15] is 1 without XSAVES"),
]


@pytest.mark.parametrize(("changed", "expected"), REASONS)
def test_why_a_guest_has_no_lbrs(changed: dict[str, object], expected: str) -> None:
    assert without(**changed) == expected


def test_why_a_guest_has_no_lbrs_on_other_hosts_and_designs() -> None:
    v, old = Vcpu(ARCHLBR), old_part(ARCHLBR)
    no_pmu = "no virtual PMU: enable_pmu is off, or CPUID.0AH says version 0"
    assert reason(ARCHLBR, v.platform, leaves(), 0x3F, 0) == no_pmu
    both = "CPUID.7.EDX[19] is 1, and the host's LBRs are model-specific"
    assert reason(ARCHLBR, old.platform, leaves(), 5, 4) == both
    assert reason(ARCHLBR, old.platform, OFF, 5, 4) == ""
    model = "model-specific LBRs need the host's model in CPUID.1:EAX"
    assert reason(ARCHLBR, old.platform, OFF._replace(signature=SPR + 1), 5, 4) == model
    assert reason(ARCHLBR, old.platform, OFF, 0x2000, 4) == "IA32_PERF_CAPABILITIES.LBR_FMT is 0"
    hidden = Vcpu(ARCHLBR, {"entry_controls": 0})
    lacking = "KVM cannot virtualize the LBRs here: the VMX controls or the PMU are missing"
    assert reason(ARCHLBR, hidden.platform, leaves(), 0x3F, 5) == lacking
    narrow = "the guest has no long mode (CPUID.80000001H:EDX[29])"
    assert reason(ARCHLBR, v.platform, leaves(long_mode=0), 0x3F, 5) == narrow
    deepest = "CPUID.1CH offers depths (8,), not 32 alone"
    assert reason(SERIES_V2, v.platform, leaves((8,)), 0x3F, 5) == deepest


def test_what_the_model_does_not_do_is_said() -> None:
    v = Vcpu(ARCHLBR)
    with pytest.raises(InternalError, match=r"^an exit from L2, which does not run$"):
        nested.exited(v.design, v.platform, v.state)
    with pytest.raises(InternalError, match=r"^MSR 10H is no register of the vPMU$"):
        v.rd(0x10)
    with pytest.raises(
        InternalError, match=r"^KVM_SET_CPUID2: -EINVAL: leaf 1CH offers depths \(8,\), the host 32 alone$"
    ):
        Vcpu(SERIES_V2, guest=leaves((8,)))
    w = Vcpu(ARCHLBR)
    w.enter()
    with pytest.raises(InternalError, match=r"^VM entry in the guest$"):
        vmcs.enter(w.design, w.platform, w.state)
    w.do(NestedEntry())
    with pytest.raises(InternalError, match=r"^VMLAUNCH in L2: two levels are modelled$"):
        w.do(NestedEntry())
    v.do(SchedOut())
    with pytest.raises(InternalError, match=r"^VM entry of a vCPU whose thread is not on a processor$"):
        vmcs.enter(v.design, v.platform, v.state)


def sealed(words: tuple[int, ...]) -> bytes:
    body = struct.pack("<8sII", b"ALBRVCPU", 1, 16 + 8 * len(words) + 32) + struct.pack(f"<{len(words)}Q", *words)
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            sealed(()),
            "vCPU snapshot contradicts itself: its counts do not add up to its size; take a new one",
        ),
        (b"ALBRVCPX" + bytes(100), "this is no vCPU snapshot: it does not begin with ALBRVCPU; take a new one"),
        (
            struct.pack("<8sII", b"ALBRVCPU", 2, 100) + bytes(100),
            "vCPU snapshot of version 2: this archlbr reads version 1; take a new one",
        ),
        (
            struct.pack("<8sII", b"ALBRVCPU", 1, 117) + bytes(100),
            "vCPU snapshot of 117 bytes has 116: it was cut or added to; copy it again",
        ),
        (
            sealed((0,) * len(WORDS) + (0, 0, 0))[:-1] + b"x",
            "vCPU snapshot is damaged: its SHA-256 differs; copy it again or take a new one",
        ),
        (
            sealed((0,) * len(WORDS) + (0, 0, 1)),
            "vCPU snapshot contradicts itself: its counts do not add up to its size; take a new one",
        ),
        (
            sealed((0,) * len(WORDS) + (0, 65, 0) + (0,) * 65),
            "vCPU snapshot has more counters or records than any processor; take a new one",
        ),
        (
            sealed((0,) * len(WORDS) + (0, 0, 65) + (0,) * 195),
            "vCPU snapshot has more counters or records than any processor; take a new one",
        ),
    ],
)
def test_a_snapshot_is_refused_by_name(data: bytes, said: str) -> None:
    with pytest.raises(InputError) as refusal:
        unpack(data)
    assert str(refusal.value) == said


def test_a_denied_request_fails() -> None:
    v = Vcpu(ARCHLBR)
    assert deny(v.design, v.platform, v.state) == v.state._replace(offer=FAILS)


def outcome(v: Vcpu, action: object) -> object:
    v.state, said = step(v.design, v.platform, v.state, action)
    return said


def test_what_userspace_is_refused_word_for_word() -> None:
    v = Vcpu(ARCHLBR)
    assert outcome(v, HostRead(INFO + 32)) == Refused("KVM_GET_MSRS: MSR 1220H is not there")
    assert outcome(v, HostRead(SELECT)) == Refused("KVM_GET_MSRS: MSR 1C8H is not there")
    assert outcome(v, HostWrite(DEPTH, 24)) == Refused("KVM_SET_MSRS: MSR 14CFH does not take 0x18")
    v.run()
    assert outcome(v, SetCpuid(OFF)) == Refused("KVM_SET_CPUID2: -EINVAL: the vCPU has run")
    w = Vcpu(SERIES_V2)
    refused = "KVM_SET_CPUID2: -EINVAL: leaf 1CH offers depths (8, 16), the host 32 alone"
    assert outcome(w, SetCpuid(leaves((8, 16)))) == Refused(refused)


def test_the_dump_word_for_word() -> None:
    v = Vcpu(ARCHLBR)
    v.wr(CTL, 0x7F0005)
    v.wr(DEBUGCTL, 1 << 11)
    head = "EntryControls=00200000 ExitControls=04000000\nDebugCtl = 0x0000000000000800  XSS-exiting = "
    assert outcome(v, DumpVmcs()) == Text(
        head + "0x0000000000000000\nLBR MSRs passed through: 32\nLBR_CTL = 0x00000000007f0005"
    )
    # While another owns the LBRs the field holds 0, and component 15 exits.
    v.do(Release())
    assert outcome(v, DumpVmcs()) == Text(
        head + "0x0000000000008000\nLBR MSRs passed through: 0\nLBR_CTL = 0x0000000000000000"
    )
    # A legacy facility has no such field, whatever the controls.
    assert outcome(old_part(ARCHLBR), DumpVmcs()) == Text(
        "EntryControls=00200000 ExitControls=04000000\n"
        "DebugCtl = 0x0000000000000000  XSS-exiting = 0x0000000000008000\n"
        "LBR MSRs passed through: 0"
    )
