"""Made-up hosts for `probe`: a tree of files, and what asking perf, KVM and QEMU would have said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.decode.dump import Leaf, Leaves
from archlbr.probe.chain import Answer, Host, Link
from archlbr.probe.hypervisor import hypervisor_links
from archlbr.probe.pmu import pmu_links
from archlbr.probe.processor import processor_links

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VENDOR = Leaf(0x1C, 0x756E6547, 0x6C65746E, 0x49656E69)  # GenuineIntel
WITH_LBR: Leaves = {
    (0, 0): VENDOR,
    (1, 0): Leaf(0x000C0652, 0, 0, 0),
    (7, 0): Leaf(2, 0, 0, 0xFC18C430),
    (0xD, 1): Leaf(0xF, 0, 0xD900, 0),
    (0xD, 15): Leaf(0x328, 0, 1, 0),
    (0x1C, 0): Leaf(0x4000000B, 7, 0x000F0007, 0),
}

WORKED = Answer()


def place(root: Path, name: str, text: str) -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def host(
    root: Path,
    *,
    cpuid: Leaves | None = None,
    perf: Answer = WORKED,
    kvm: Answer = WORKED,
    finds: Callable[[str], str | None] = lambda _name: None,
    features: str = "",
    allowed: bool = True,
    architecture: str = "x86_64 Linux",
) -> Host:
    return Host(
        root=root,
        cpuid=cpuid,
        cpuid_source="a dump",
        opens_perf=lambda: perf,
        asks_kvm=lambda _node: kvm,
        finds=finds,
        knows=lambda _path: features,
        may_use=lambda _path: allowed,
        architecture=architecture,
    )


def whole(root: Path) -> Host:
    """Return a host on which each link holds."""
    place(root, "/sys/bus/event_source/devices/cpu/caps/branches", "32\n")
    place(root, "/proc/sys/kernel/perf_event_paranoid", "2\n")
    place(root, "/dev/kvm", "")
    return host(
        root,
        cpuid=WITH_LBR,
        kvm=Answer(version=12, leaves=WITH_LBR),
        finds=lambda name: f"/usr/bin/{name}",
        features="  apic arch-lbr arat",
    )


def chain(of: Host) -> tuple[Link, ...]:
    return processor_links(of) + pmu_links(of) + hypervisor_links(of)
