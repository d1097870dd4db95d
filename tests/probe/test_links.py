"""Each link on made-up hosts: its state, its sentence and the way out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from archlbr.decode.dump import Leaf, Leaves
from archlbr.probe.ask import ask, bounded_output, read_cpuid
from archlbr.probe.chain import Answer, Link, State, first_broken
from archlbr.probe.engine import engine_links
from archlbr.probe.hypervisor import hypervisor_links
from archlbr.probe.pmu import pmu_links
from archlbr.probe.processor import family_and_model, processor_links
from tests.probe.hosts import WITH_LBR, chain, host, place

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "use `archlbr record`, which needs no such processor, or a host with Alder Lake, Sapphire Rapids or newer"
AMD = Leaf(0x10, 0x68747541, 0x444D4163, 0x69746E65)  # AuthenticAMD


def test_an_empty_host_names_each_missing_thing(tmp_path: Path) -> None:
    missing = "not asked: the link kvm-device does not hold"
    of = host(tmp_path, perf=Answer("ENOENT"))
    assert chain(of) == (
        Link("processor", State.UNKNOWN, "no CPUID and no vendor_id in /proc/cpuinfo", NOWHERE),
        Link(
            "arch-lbr",
            State.UNKNOWN,
            "no CPUID and no flags in /proc/cpuinfo",
            "as root: modprobe cpuid; or give `cpuid -r` output with --cpuid FILE",
        ),
        Link(
            "leaf-1c",
            State.UNKNOWN,
            "CPUID cannot be read from a file here",
            "as root: modprobe cpuid; or give `cpuid -r` output with --cpuid FILE",
        ),
        Link("pmu", State.UNKNOWN, "no /sys/bus/event_source/devices", "mount sysfs"),
        Link("branch-stack", State.BROKEN, "no PMU, so no branch stack", "mend the link pmu first"),
        Link(
            "permission",
            State.BROKEN,
            "no /proc/sys/kernel/perf_event_paranoid",
            "use a kernel with CONFIG_PERF_EVENTS",
        ),
        Link("perf-open", State.BROKEN, "perf_event_open: ENOENT, there is no hardware PMU", "mend the link pmu first"),
        Link("kvm-device", State.BROKEN, "no /dev/kvm", "modprobe kvm_intel; in a virtual machine: switch on nesting"),
        Link("kvm-api", State.UNKNOWN, missing, "mend the link kvm-device first"),
        Link("kvm-lbr", State.UNKNOWN, missing, "mend the link kvm-device first"),
        Link("qemu", State.BROKEN, "no qemu-system-x86_64 on PATH", "install qemu-system-x86"),
    )
    assert first_broken(chain(of)) == chain(of)[4]


CPUINFO = "processor\t: 0\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nflags\t\t: fpu {}\n"


@pytest.mark.parametrize(
    ("cpuinfo", "links"),
    [
        (
            CPUINFO.format("GenuineIntel", 6, 143, "Xeon", "arch_lbr"),
            (
                Link("processor", State.OK, "GenuineIntel family 6 model 143, Xeon"),
                Link("arch-lbr", State.OK, "/proc/cpuinfo has the flag arch_lbr"),
            ),
        ),
        (
            CPUINFO.format("GenuineIntel", 6, 85, "Xeon", "pdcm"),
            (
                Link("processor", State.OK, "GenuineIntel family 6 model 85, Xeon"),
                Link("arch-lbr", State.BROKEN, "/proc/cpuinfo has no flag arch_lbr", NOWHERE),
            ),
        ),
        (
            CPUINFO.format("AuthenticAMD", 25, 17, "EPYC", "hypervisor"),
            (
                Link(
                    "processor",
                    State.BROKEN,
                    "AuthenticAMD family 25 model 17, EPYC: only Intel's have Architectural LBR",
                    NOWHERE,
                ),
                Link(
                    "arch-lbr",
                    State.BROKEN,
                    "/proc/cpuinfo has no flag arch_lbr; this is a virtual machine",
                    f"its hypervisor hides it: {NOWHERE}",
                ),
            ),
        ),
    ],
)
def test_the_processor_is_read_from_cpuinfo(tmp_path: Path, cpuinfo: str, links: tuple[Link, ...]) -> None:
    place(tmp_path, "/proc/cpuinfo", cpuinfo)
    assert processor_links(host(tmp_path))[:2] == links


@pytest.mark.parametrize(
    ("eax", "said"),
    [(0x000C0652, (6, 197)), (0x000806F8, (6, 143)), (0x00A10F11, (25, 17)), (0x00000F4A, (15, 4)), (0x0543, (5, 4))],
)
def test_family_and_model_are_put_together_as_the_manual_says(eax: int, said: tuple[int, int]) -> None:
    assert family_and_model(eax) == said


@pytest.mark.parametrize(
    ("changed", "link"),
    [
        (
            {(0x1C, 0): Leaf(0, 0, 0, 0)},
            Link(
                "leaf-1c",
                State.BROKEN,
                "07H:EDX[19] is 1, yet 1CH:EAX[7:0] names no depth",
                "report it to the hypervisor's makers",
            ),
        ),
        (
            {(0xD, 15): Leaf(0, 0, 0, 0)},
            Link(
                "leaf-1c",
                State.BROKEN,
                "component 15 has 0 bytes where 808 are needed",
                "report it to the hypervisor's makers",
            ),
        ),
        (
            {(0xD, 1): Leaf(0xF, 0, 0x1900, 0)},
            Link("leaf-1c", State.OK, "depths 8, 16, 32; XSAVE component 15 absent"),
        ),
        (
            {(7, 0): Leaf(0, 0, 0, 0), (0x1C, 0): Leaf(0, 0, 0, 0), (0xD, 1): Leaf(0xF, 0, 0x1900, 0)},
            Link("leaf-1c", State.BROKEN, "no Architectural LBR to describe", "mend the link arch-lbr first"),
        ),
    ],
)
def test_leaves_that_contradict_each_other_break_a_link(tmp_path: Path, changed: Leaves, link: Link) -> None:
    assert processor_links(host(tmp_path, cpuid=WITH_LBR | changed))[2] == link


def test_amd_is_recognised_by_cpuid(tmp_path: Path) -> None:
    found = processor_links(host(tmp_path, cpuid={(0, 0): AMD, (1, 0): Leaf(0x00A10F11, 0, 1 << 31, 0)}))
    assert found[0].evidence == "AuthenticAMD family 25 model 17: only Intel's have Architectural LBR"
    assert found[1].evidence == "CPUID.07H:EDX[19] = 0 (a dump); this is a virtual machine"


def test_hybrid_processors_have_two_pmus(tmp_path: Path) -> None:
    for name in ("cpu_core", "cpu_atom"):
        place(tmp_path, f"/sys/bus/event_source/devices/{name}/caps/branches", "32")
    assert pmu_links(host(tmp_path))[:2] == (
        Link("pmu", State.OK, "/sys/bus/event_source/devices/cpu_core, /sys/bus/event_source/devices/cpu_atom"),
        Link(
            "branch-stack",
            State.OK,
            "/sys/bus/event_source/devices/cpu_core/caps/branches = 32, "
            "/sys/bus/event_source/devices/cpu_atom/caps/branches = 32",
        ),
    )


def test_a_pmu_without_lbrs_breaks_the_branch_stack(tmp_path: Path) -> None:
    place(tmp_path, "/sys/bus/event_source/devices/cpu/caps/pmu_name", "skylake")
    assert pmu_links(host(tmp_path))[1] == Link(
        "branch-stack",
        State.BROKEN,
        "no /sys/bus/event_source/devices/cpu/caps/branches: the kernel found no LBRs",
        "in a virtual machine: a hypervisor that offers them; else `archlbr record`",
    )


@pytest.mark.parametrize(
    ("text", "state", "evidence"),
    [
        ("-1", State.OK, "/proc/sys/kernel/perf_event_paranoid = -1"),
        ("3\n", State.BROKEN, "/proc/sys/kernel/perf_event_paranoid = 3: only root may measure"),
        ("x", State.UNKNOWN, "/proc/sys/kernel/perf_event_paranoid = 'x'"),
    ],
)
def test_who_may_measure_is_the_kernel_s_word(tmp_path: Path, text: str, state: State, evidence: str) -> None:
    place(tmp_path, "/proc/sys/kernel/perf_event_paranoid", text)
    assert pmu_links(host(tmp_path))[2][:3] == ("permission", state, evidence)


@pytest.mark.parametrize(
    ("error", "state", "evidence"),
    [
        ("EOPNOTSUPP", State.BROKEN, "perf_event_open: EOPNOTSUPP, the PMU has no branch stack, or cannot interrupt"),
        ("EACCES", State.BROKEN, "perf_event_open: EACCES, it is not allowed"),
        ("EBUSY", State.UNKNOWN, "perf_event_open: EBUSY"),
        ("no answer within 5 seconds", State.UNKNOWN, "perf_event_open: no answer within 5 seconds"),
    ],
)
def test_a_refused_event_says_why(tmp_path: Path, error: str, state: State, evidence: str) -> None:
    assert pmu_links(host(tmp_path, perf=Answer(error)))[3][:3] == ("perf-open", state, evidence)


@pytest.mark.parametrize(
    ("answer", "states", "evidence"),
    [
        (
            Answer(version=12, leaves={(7, 0): Leaf(0, 0, 0, 0)}),
            (State.OK, State.BROKEN),
            "KVM_GET_SUPPORTED_CPUID: 07H:EDX[19] = 0, depths none",
        ),
        (
            Answer(version=12, leaves={(7, 0): Leaf(0, 0, 0, 1 << 19)}),
            (State.OK, State.BROKEN),
            "KVM_GET_SUPPORTED_CPUID: 07H:EDX[19] = 1, depths none: a guest would see LBRs of no depth",
        ),
        (Answer(version=11), (State.BROKEN, State.UNKNOWN), "KVM_GET_SUPPORTED_CPUID: no leaves"),
        (Answer(error="ENOTTY"), (State.UNKNOWN, State.UNKNOWN), "KVM_GET_SUPPORTED_CPUID: ENOTTY"),
    ],
)
def test_what_kvm_offers_is_what_it_answers(
    tmp_path: Path, answer: Answer, states: tuple[State, State], evidence: str
) -> None:
    place(tmp_path, "/dev/kvm", "")
    links = hypervisor_links(host(tmp_path, kvm=answer))
    assert (links[1].state, links[2].state) == states
    assert links[2].evidence == evidence


def test_a_forbidden_kvm_is_not_asked(tmp_path: Path) -> None:
    place(tmp_path, "/dev/kvm", "")
    links = hypervisor_links(host(tmp_path, allowed=False, kvm=Answer(version=12, leaves=WITH_LBR)))
    assert links[0] == Link(
        "kvm-device", State.BROKEN, "/dev/kvm may not be read and written by you", "join its group, often kvm"
    )
    assert [link.state for link in links[1:3]] == [State.UNKNOWN, State.UNKNOWN]


def test_a_qemu_that_does_not_know_the_feature_breaks_the_link(tmp_path: Path) -> None:
    found = hypervisor_links(host(tmp_path, finds=lambda name: f"/usr/bin/{name}", features="apic lbrv"))[3]
    assert found[:3] == ("qemu", State.BROKEN, "qemu-system-x86_64 -cpu help does not name arch-lbr")


def test_what_our_own_engine_needs(tmp_path: Path) -> None:
    of = host(tmp_path, architecture="aarch64 Linux")
    assert engine_links(of, ["numpy>=2", "unicorn==2.1.4"], {"unicorn": "2.1.3"}.get, (tmp_path, False)) == (
        Link(
            "system",
            State.BROKEN,
            "aarch64 Linux: system calls of x86-64 Linux programs cannot be passed on",
            "record on x86-64 Linux",
        ),
        Link("unicorn", State.BROKEN, "unicorn 2.1.3 is installed, 2.1.4 is needed", "pip install unicorn==2.1.4"),
        Link("compiled", State.BROKEN, f"{tmp_path} cannot be written: each run compiles anew", "set NUMBA_CACHE_DIR"),
        Link(
            "qemu-user",
            State.UNKNOWN,
            "no qemu-x86_64 on PATH: `--engine qemu` is not offered",
            "install qemu-user",
        ),
    )


def test_a_process_that_hangs_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        bounded_output([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)


def test_a_process_that_dies_is_an_answer() -> None:
    assert ask("archlbr.no_such_module") == Answer(error="the process that asked died")


def test_a_file_that_is_no_device_answers_with_its_error(tmp_path: Path) -> None:
    place(tmp_path, "kvm", "")
    assert ask("archlbr.probe.kvm_query", str(tmp_path / "kvm")) == Answer(error="ENOTTY")


def test_a_short_cpuid_device_is_no_cpuid(tmp_path: Path) -> None:
    place(tmp_path, "cpuid", "short")
    assert read_cpuid(tmp_path / "cpuid") is None
    assert read_cpuid(tmp_path / "none") is None
