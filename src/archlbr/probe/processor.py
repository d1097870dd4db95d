"""The silicon's links: which processor, Architectural LBR, and the leaves that must agree about it.

Fed by /proc/cpuinfo and CPUID; reference architecture.md 1.1 rules, users-and-peers.md 3.2 (bugs 1 and 2) says why the
leaves are compared.
"""

from __future__ import annotations

import re

from archlbr.arch.cpuid import Leaf0D1, Leaf07, Leaf1C
from archlbr.arch.xsave import COMPONENT_BIT
from archlbr.decode.dump import Leaf, Leaves
from archlbr.decode.leaves import contradictions
from archlbr.probe.chain import Host, Link, State

NO_SILICON = "use `archlbr record`, which needs no such processor, or a host with Alder Lake, Sapphire Rapids or newer"
HOW_TO_READ_CPUID = "as root: modprobe cpuid; or give `cpuid -r` output with --cpuid FILE"


def processor_links(host: Host) -> tuple[Link, ...]:
    """Return the links of the processor, in the order a branch record passes them."""
    return processor(host), arch_lbr(host), leaf_1c(host)


def processor(host: Host) -> Link:
    """Say whose processor it is: Architectural LBR exists on Intel's."""
    vendor, family, model, name = _identity(host)
    if not vendor:
        return Link("processor", State.UNKNOWN, "no CPUID and no vendor_id in /proc/cpuinfo", NO_SILICON)
    evidence = f"{vendor} family {family} model {model}" + (f", {name}" if name else "")
    if vendor == "GenuineIntel":
        return Link("processor", State.OK, evidence)
    return Link("processor", State.BROKEN, f"{evidence}: only Intel's have Architectural LBR", NO_SILICON)


def arch_lbr(host: Host) -> Link:
    """Say whether CPUID enumerates Architectural LBR, or Linux says it does."""
    if host.cpuid is not None:
        found = Leaf07(*_leaf(host.cpuid, 7, 0)).arch_lbr
        where = f"CPUID.07H:EDX[19] = {int(found)} ({host.cpuid_source})"
    else:
        flags = _cpuinfo(host, "flags")
        if flags is None:
            return Link("arch-lbr", State.UNKNOWN, "no CPUID and no flags in /proc/cpuinfo", HOW_TO_READ_CPUID)
        found = "arch_lbr" in flags.split()
        where = f"/proc/cpuinfo has {'the' if found else 'no'} flag arch_lbr"
    if found:
        return Link("arch-lbr", State.OK, where)
    if _in_a_machine(host):
        return Link(
            "arch-lbr", State.BROKEN, f"{where}; this is a virtual machine", f"its hypervisor hides it: {NO_SILICON}"
        )
    return Link("arch-lbr", State.BROKEN, where, NO_SILICON)


def leaf_1c(host: Host) -> Link:
    """Say whether leaf 1CH and XSAVE component 15 agree with CPUID.07H:EDX[19]."""
    if host.cpuid is None:
        return Link("leaf-1c", State.UNKNOWN, "CPUID cannot be read from a file here", HOW_TO_READ_CPUID)
    wrong = contradictions(host.cpuid)
    if wrong:
        return Link("leaf-1c", State.BROKEN, "; ".join(wrong), "report it to the hypervisor's makers")
    depths = Leaf1C(*_leaf(host.cpuid, 0x1C, 0)).depths
    if not depths:
        return Link("leaf-1c", State.BROKEN, "no Architectural LBR to describe", "mend the link arch-lbr first")
    offered = Leaf0D1(*_leaf(host.cpuid, 0xD, 1)).xss_mask & COMPONENT_BIT
    evidence = f"depths {', '.join(map(str, depths))}; XSAVE component 15 {'offered' if offered else 'absent'}"
    # Absent is legal, and Linux copes (commit 8c16dc047b5d); users-and-peers.md 3.2, bug 2, is a kernel that did not.
    return Link("leaf-1c", State.OK, evidence)


def family_and_model(eax: int) -> tuple[int, int]:
    """Return the display family and model of CPUID.01H:EAX (SDM vol. 2A, CPUID, figure 3-6)."""
    family, model = eax >> 8 & 0xF, eax >> 4 & 0xF
    if family in (6, 15):
        model |= (eax >> 16 & 0xF) << 4
    if family == 15:
        family += eax >> 20 & 0xFF
    return family, model


def _identity(host: Host) -> tuple[str, str, str, str]:
    if host.cpuid is not None and (0, 0) in host.cpuid:
        first = host.cpuid[0, 0]
        vendor = b"".join(word.to_bytes(4, "little") for word in (first.ebx, first.edx, first.ecx))
        family, model = family_and_model(_leaf(host.cpuid, 1, 0).eax)
        return vendor.decode("ascii", "replace"), str(family), str(model), _brand(host.cpuid)
    words = (_cpuinfo(host, key) or "" for key in ("vendor_id", "cpu family", "model", "model name"))
    vendor_id, family_text, model_text, name = words
    return vendor_id, family_text, model_text, name


def _brand(leaves: Leaves) -> str:
    words = [word for leaf in (0x80000002, 0x80000003, 0x80000004) for word in _leaf(leaves, leaf, 0)]
    text = b"".join(word.to_bytes(4, "little") for word in words).decode("ascii", "replace")
    return " ".join(text.replace("\0", " ").split())


def _in_a_machine(host: Host) -> bool:
    if host.cpuid is not None:
        return bool(_leaf(host.cpuid, 1, 0).ecx >> 31 & 1)  # CPUID.01H:ECX[31], set by hypervisors
    return "hypervisor" in (_cpuinfo(host, "flags") or "").split()


def _cpuinfo(host: Host, key: str) -> str | None:
    found = re.search(rf"^{key}[ \t]*: ?(.*)$", host.text("/proc/cpuinfo") or "", re.MULTILINE)
    return found[1] if found else None


def _leaf(leaves: Leaves, leaf: int, subleaf: int) -> Leaf:
    return leaves.get((leaf, subleaf), Leaf(0, 0, 0, 0))
