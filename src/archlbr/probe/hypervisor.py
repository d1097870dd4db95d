"""The hypervisor's links: /dev/kvm, its interface, the LBRs it offers a guest, and a QEMU that can ask for them.

Fed by the device node, two ioctls in a process of its own (no vCPU is ever made), and QEMU's list of features.
Authority: Documentation/virt/kvm/api.rst 4.1 and 4.46; reference profile-tools.md 6.
"""

from __future__ import annotations

from archlbr.arch.cpuid import Leaf07, Leaf1C
from archlbr.probe.chain import Answer, Host, Link, State

KVM = "/dev/kvm"
KVM_API_VERSION = 12  # api.rst 4.1: the only version; others are refused
QEMU = "qemu-system-x86_64"


def hypervisor_links(host: Host) -> tuple[Link, ...]:
    """Return the links from the device node to the guest's command line."""
    device = kvm_device(host)
    if device.state is not State.OK:
        absent = "not asked: the link kvm-device does not hold"
        asked = (
            Link("kvm-api", State.UNKNOWN, absent, "mend the link kvm-device first"),
            Link("kvm-lbr", State.UNKNOWN, absent, "mend the link kvm-device first"),
        )
    else:
        answer = host.asks_kvm(host.path(KVM))
        asked = (kvm_api(answer), kvm_lbr(answer))
    return device, *asked, qemu(host)


def kvm_device(host: Host) -> Link:
    """Say whether there is a KVM, and whether we may use it."""
    node = host.path(KVM)
    if not node.exists():
        return Link(
            "kvm-device", State.BROKEN, f"no {KVM}", "modprobe kvm_intel; in a virtual machine: switch on nesting"
        )
    if not host.may_use(node):
        return Link(
            "kvm-device", State.BROKEN, f"{KVM} may not be read and written by you", "join its group, often kvm"
        )
    return Link("kvm-device", State.OK, f"{KVM} may be read and written")


def kvm_api(answer: Answer) -> Link:
    """Say whether the device speaks KVM's one stable interface."""
    if answer.error:
        return Link("kvm-api", State.UNKNOWN, f"KVM_GET_API_VERSION: {answer.error}", "look at the kernel's log")
    if answer.version != KVM_API_VERSION:
        said = f"KVM_GET_API_VERSION = {answer.version}, not {KVM_API_VERSION}"
        return Link("kvm-api", State.BROKEN, said, "use a kernel's own KVM")
    return Link("kvm-api", State.OK, f"KVM_GET_API_VERSION = {answer.version}")


def kvm_lbr(answer: Answer) -> Link:
    """Say whether KVM offers a guest Architectural LBR."""
    if answer.error or not answer.leaves:
        said = f"KVM_GET_SUPPORTED_CPUID: {answer.error or 'no leaves'}"
        return Link("kvm-lbr", State.UNKNOWN, said, "mend the link kvm-api first")
    offered = Leaf07(*answer.leaves.get((7, 0), ())).arch_lbr
    depths = Leaf1C(*answer.leaves.get((0x1C, 0), ())).depths
    evidence = f"KVM_GET_SUPPORTED_CPUID: 07H:EDX[19] = {int(offered)}, depths {', '.join(map(str, depths)) or 'none'}"
    if offered and depths:
        return Link("kvm-lbr", State.OK, evidence)
    if offered:
        return Link(
            "kvm-lbr", State.BROKEN, f"{evidence}: a guest would see LBRs of no depth", "use a KVM that fills leaf 1CH"
        )
    return Link(
        "kvm-lbr",
        State.BROKEN,
        evidence,
        "no merged KVM up to Linux 6.12 offers it; inside the guest, `archlbr record` works",
    )


def qemu(host: Host) -> Link:
    """Say whether a QEMU is installed that knows the feature by name."""
    path = host.finds(QEMU)
    if path is None:
        return Link("qemu", State.BROKEN, f"no {QEMU} on PATH", "install qemu-system-x86")
    if "arch-lbr" in host.knows(path).split():
        return Link("qemu", State.OK, f"{QEMU} knows arch-lbr; start the guest with -cpu host,pmu=on,arch-lbr=on")
    return Link("qemu", State.BROKEN, f"{QEMU} -cpu help does not name arch-lbr", "use QEMU 7.2 or newer")
