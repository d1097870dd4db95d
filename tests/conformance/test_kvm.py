"""The KVM target: its process may hang, die or be refused; a real device, where there is one, is asked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from archlbr.arch.cpuid import GOLDEN_COVE, Leaf0A
from archlbr.conformance import questions as q
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.table import CASES
from archlbr.conformance.run import Verdict, run
from archlbr.conformance.targets import kvm, kvm_cpuid
from archlbr.conformance.targets.kvm import KvmProcess, KvmTarget
from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = Path("/dev/kvm")

# As a KVM without the facility has it: leaf, sub-leaf, flags, four registers.
OFFERED = [
    [1, 0, 0, 0xA0671, 0, 0, 0],
    [7, 0, 1, 2, 0, 0, 0],
    [0xA, 0, 0, 0x08300805, 0, 0, 0x8604],
    [0xD, 0, 1, 7, 0, 0, 0],
    [0xD, 1, 1, 0xF, 0, 0, 0],
    [0x1C, 0, 0, 0, 0, 0, 0],
    [0x80000001, 0, 0, 0, 0, 0, 1 << 29],
]


def test_a_guest_with_the_facility_is_told_of_it_everywhere() -> None:
    rows = kvm_cpuid.edited(OFFERED, q.Guest(model=0x806F8))
    assert kvm_cpuid.registers(rows, 1, 0)[0] == 0x806F8
    assert kvm_cpuid.registers(rows, 7, 0)[3] == 1 << 19
    assert kvm_cpuid.registers(rows, 0xA, 0) == list(Leaf0A.of(2))
    assert kvm_cpuid.registers(rows, 0xD, 1) == [0xF, 0, 1 << 15, 0]
    assert kvm_cpuid.registers(rows, 0xD, 15) == [0x328, 0, 1, 0]
    assert kvm_cpuid.registers(rows, 0x1C, 0) == list(GOLDEN_COVE._replace(eax=8))


def test_a_plain_guest_is_told_of_nothing() -> None:
    rows = kvm_cpuid.edited([[7, 0, 1, 2, 0, 0, 1 << 19 | 1], *OFFERED[2:]], w.PLAIN._replace(pmu_version=0, xsaves=0))
    assert kvm_cpuid.registers(rows, 7, 0) == [2, 0, 0, 1]
    assert kvm_cpuid.registers(rows, 0xA, 0) == [0, 0, 0, 0]
    assert kvm_cpuid.registers(rows, 0xD, 1) == [7, 0, 0, 0]
    assert [row for row in rows if (row[0], row[1]) in ((0x1C, 0), (0xD, 15))] == []


def test_the_offered_rows_stay_as_they_are() -> None:
    before = [list(row) for row in OFFERED]
    kvm_cpuid.edited(OFFERED, q.Guest(long_mode=0))
    assert before == OFFERED


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "PROCESS", "tests.conformance.kvm_answers")
    monkeypatch.setattr(kvm, "SECONDS", 4)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("silent", "silent: no answer to open within 4 seconds; ask another KVM"),
        ("version", "version: KVM_GET_API_VERSION is 11, not 12; use a kernel's own KVM"),
        ("denied", "denied: open: Permission denied; join its group, often kvm"),
        ("dies", "dies: the process that asks it died at version; look at the kernel's log"),
    ],
)
def test_a_device_that_cannot_be_used_is_one_line(behaviour: str, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError) as refusal:
        KvmProcess(behaviour)
    assert str(refusal.value) == said
    assert time.monotonic() - started < 30


@pytest.mark.usefixtures("stand_in")
def test_a_vcpu_that_hangs_leaves_the_vmm_s_questions(tmp_path: Path) -> None:
    device = tmp_path / "stuck"
    device.touch()
    target = KvmTarget(str(device))
    results = {result.case.name: result for result in run(target, CASES)}
    target.close()
    hung = f"a vCPU that runs ({device}: no answer to execute within 4 seconds; ask another KVM)"
    assert (results["no-edx19-CTL"].verdict, results["no-edx19-CTL"].why) == (Verdict.SKIP, hung)
    assert results["no-edx19-vmm-sets-nothing"].verdict is Verdict.PASS
    assert results["cpuid-zero-1c-any"].verdict is Verdict.FAIL  # it refuses each KVM_SET_CPUID2


def test_a_file_that_is_no_kvm_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/null: version: Inappropriate ioctl for device; look at"):
        KvmTarget("/dev/null")


def test_where_there_is_no_device_each_case_is_skipped(tmp_path: Path) -> None:
    target = KvmTarget(str(tmp_path / "kvm"))
    results = list(run(target, CASES))
    target.close()
    assert {(result.verdict, result.why) for result in results} == {
        (Verdict.SKIP, f"{tmp_path / 'kvm'}: there is no KVM")
    }


@pytest.fixture(scope="module")
def target() -> Iterator[KvmTarget]:
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        pytest.skip(f"no {DEVICE} that may be read and written")
    try:
        one = KvmTarget(str(DEVICE))
    except InputError as refusal:
        pytest.skip(str(refusal))
    yield one
    one.close()


def test_a_real_kvm_holds_what_it_can_be_asked(target: KvmTarget) -> None:
    results = list(run(target, CASES))
    assert [(result.case.name, result.why) for result in results if result.verdict is Verdict.FAIL] == []
    asked = {result.case.name for result in results if result.verdict is not Verdict.SKIP}
    # The VMM's questions need no guest code and no Intel processor.
    assert {"offer-stable", "fmt-any-plain-zero", "no-edx19-vmm-sets-nothing", "savable-vmm-CTL"} <= asked
    assert sum(name.startswith("xss-savable-") for name in asked) == 64


def test_guest_code_faults_on_a_real_kvm(target: KvmTarget) -> None:
    lacking = target.lacks(w.ANY_PLAIN, (q.Rdmsr(w.CTL),))
    if lacking:
        pytest.skip(lacking)
    names = {f"no-edx19-{name}" for name, _ in w.RECORDS} | {"no-edx19-CTL", "no-edx19-DEPTH"}
    results = [result for result in run(target, CASES) if result.case.name in names]
    assert len(results) == 98
    assert {result.verdict for result in results} == {Verdict.PASS}


def test_the_guest_reads_the_cpuid_it_was_given(target: KvmTarget) -> None:
    lacking = target.lacks(w.ANY_PLAIN, (q.Cpuid(0),))
    if lacking:
        pytest.skip(lacking)
    target.start(q.Setup(None, w.GUEST))
    answer = target.execute(q.Cpuid(0x1C, 0))
    assert tuple(answer) == tuple(w.GUEST.leaf or ())


def test_what_a_kvm_cannot_be_asked_is_named(target: KvmTarget) -> None:
    for question in (q.Look(q.Place.VMCS_CTL), q.EnterL2(), q.Happen(q.Event.SMI), q.Branch(1, 2, 2)):
        assert target.lacks(w.ANY_PLAIN, (question,)) != ""
