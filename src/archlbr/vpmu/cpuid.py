"""The guest's CPUID: what KVM offers, what userspace may set, and what follows from it for the LBRs.

`step` asks `supported` for KVM_GET_SUPPORTED_CPUID and `rules` at each KVM_SET_CPUID2; registers and interception read
the Rules and never the leaves. An inconsistent CPUID leaves the LBRs off and says why; only a design that refuses
CPUIDs returns -EINVAL. Authority: reference kvm-series.md A (P3, P5, P11, P15), C.4;
users-and-peers.md 3.2 (bugs 1, 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs
from archlbr.arch.cpuid import LBR_COMPONENT, Leaf0A, Leaf0D, Leaf0D1, Leaf0DComponent, Leaf07, Leaf1C
from archlbr.arch.xsave import COMPONENT, COMPONENT_BIT, COMPONENT_OFFSET
from archlbr.lbr.state import ARCH, Facility, architectural

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform, State

ARCH_LBR = 1 << 19
XSAVES, XSAVEC = 1 << 3, 1 << 1
_ABSENT = Leaf0DComponent()
EINVAL = "KVM_SET_CPUID2: -EINVAL"


class Cpuid(NamedTuple):
    """The leaves that matter; a leaf userspace did not give is all 0, and leaf1c None.

    signature: 01H:EAX. pdcm: 01H:ECX[15]. long_mode: 80000001H:EDX[29]. components: 0DH.n for n > 1, by number.
    """

    signature: int = 0
    pdcm: int = 1
    long_mode: int = 1
    leaf07: Leaf07 = Leaf07()
    leaf0a: Leaf0A = Leaf0A()
    leaf0d: Leaf0D = Leaf0D()
    leaf0d1: Leaf0D1 = Leaf0D1()
    components: tuple[tuple[int, Leaf0DComponent], ...] = ()
    leaf1c: Leaf1C | None = None

    def component(self, number: int) -> Leaf0DComponent:
        """Return sub-leaf `number` of 0DH, all 0 when it is not there."""
        return next((leaf for n, leaf in self.components if n == number), _ABSENT)


class Rules(NamedTuple):
    """What follows from the CPUID for one vCPU.

    usable: 1 when the guest has LBRs; why: the reason when not, one line. flavour: ARCH, a legacy format, or -1 for
    none. facility: the guest's own facility, by which what KVM emulates is judged. xss: legal bits of IA32_XSS. pmu:
    the guest's PMU version, 0 for none. gp, fixed, gp_mask, fixed_mask: its counters and the values they hold.
    direct: 1 when the processor enforces all that the guest's leaf says, so that XSAVES may go round KVM. depths: legal
    values of IA32_LBR_DEPTH. ler: 1 when the LER registers are the guest's own. freezes_counters: 1 when DEBUGCTL[12]
    is there.
    """

    usable: int
    why: str
    flavour: int
    facility: Facility
    xss: int
    pmu: int
    gp: int
    fixed: int
    gp_mask: int
    fixed_mask: int
    direct: int
    depths: tuple[int, ...]
    ler: int
    freezes_counters: int


def supported(design: Design, platform: Platform) -> Cpuid:
    """Return what KVM_GET_SUPPORTED_CPUID offers on this host.

    Without both VMX controls, without a PMU or on another vendor's processor the feature bit and leaf 1CH are 0 (P10,
    P11, P15); series v2 trusts the host's bit whatever the vendor.
    """
    host = platform.cpuid
    xss = supported_xss(design, platform)
    components = tuple(row for row in host.components if row[0] != COMPONENT or xss & COMPONENT_BIT)
    leaf0a = host.leaf0a if platform.pmu else Leaf0A()
    offered = offers(design, platform)
    edx = host.leaf07.edx & ~ARCH_LBR | ARCH_LBR * offered
    leaf1c = Leaf1C()
    if offered and host.leaf1c is not None:
        leaf1c = host.leaf1c if design.unfiltered_leaf else _defined(host.leaf1c)
        if design.highest_depth_only:
            leaf1c = leaf1c._replace(eax=leaf1c.eax & ~0xFF | _highest(leaf1c))
    return host._replace(
        leaf07=host.leaf07._replace(edx=edx),
        leaf0a=leaf0a,
        leaf0d1=host.leaf0d1._replace(ecx=host.leaf0d1.ecx & xss & 0xFFFFFFFF, edx=0),
        components=components,
        leaf1c=leaf1c,
    )


def offers(design: Design, platform: Platform) -> int:
    """Return 1 when KVM has the ARCH_LBR capability: the facility, both controls, a PMU, and Intel's processor.

    The opt-in is Sean Christopherson's on P11: set the capability only where all of it is supported.
    """
    leaf = platform.cpuid.leaf1c
    there = platform.facility.format == ARCH and platform.cpuid.leaf07.arch_lbr and leaf is not None and leaf.depths
    if not there:
        return 0
    if design.opt_out:
        return int(bool(platform.controls or platform.vendor != "intel"))
    return int(bool(platform.controls and platform.pmu and platform.vendor == "intel"))


def supported_xss(design: Design, platform: Platform) -> int:
    """Return the components of IA32_XSS that KVM supports: bit 15, if the host's kernel and both controls allow (P11).

    Component 15 without the feature it saves is offered by series v2 alone, which asks for no more than the controls.
    The other supervisor components have no part in this model (P9: the mask is the host's and KVM's).
    """
    served = platform.controls if design.xss_for_every_guest else offers(design, platform)
    there = platform.cpuid.leaf0d1.xsaves and platform.facility.xsaves and served
    return platform.xss & COMPONENT_BIT if there else 0


def _defined(leaf: Leaf1C) -> Leaf1C:
    eax, ebx, ecx, _ = (word & ~wrong for word, wrong in zip(leaf, leaf.reserved, strict=True))
    # Event logging needs IA32_PERFEVTSELx[35], which the virtual counters do not have.
    return Leaf1C(eax, ebx, ecx & 0xFFFF, 0)


def _highest(leaf: Leaf1C) -> int:
    return 1 << (leaf.max_depth // 8 - 1)


def einval(design: Design, platform: Platform, cpuid: Cpuid) -> str:
    """Return why KVM_SET_CPUID2 fails, or "" (P15: the design that refuses compares leaf 1CH, feature or not)."""
    host = platform.cpuid.leaf1c
    if not design.refuses_cpuid or not offers(design, platform) or cpuid.leaf1c is None or host is None:
        return ""
    if cpuid.leaf1c.eax & 0xFF == _highest(host):
        return ""
    return f"{EINVAL}: leaf 1CH offers depths {cpuid.leaf1c.depths}, the host {host.max_depth} alone"


def rules(design: Design, platform: Platform, cpuid: Cpuid, capabilities: int) -> Rules:
    """Return what follows from a guest's CPUID and its IA32_PERF_CAPABILITIES."""
    pmu = min(cpuid.leaf0a.version, platform.facility.pmu_version) if platform.pmu else 0
    why = reason(design, platform, cpuid, capabilities, pmu)
    usable = int(not why)
    flavour = platform.facility.format if usable else -1
    facility = _guest_facility(design, platform, cpuid, pmu) if usable else platform.facility
    leaf = cpuid.leaf0a
    xss = supported_xss(design, platform)
    told = flavour == ARCH and bool(cpuid.leaf0d1.ecx & COMPONENT_BIT)
    if not cpuid.leaf0d1.xsaves or not (told or design.xss_for_every_guest):
        xss = 0
    return Rules(
        usable,
        why,
        flavour,
        facility,
        xss,
        pmu,
        min(leaf.gp_counters, msrs.IA32_PMC.count) if pmu else 0,
        min(leaf.fixed_counters, msrs.IA32_FIXED_CTR.count) if pmu >= 2 else 0,
        (1 << leaf.gp_width) - 1,
        (1 << leaf.fixed_width) - 1,
        int(facility.ctl_legal == platform.facility.ctl_legal),
        facility.leaf.depths,
        int(usable and design.virtual_ler),
        int(platform.freezes_counters and pmu >= 2),
    )


def reason(design: Design, platform: Platform, cpuid: Cpuid, capabilities: int, pmu: int) -> str:
    """Return why this guest has no LBRs, or "" when it has.

    Flavours must match, host and guest (Sean Christopherson on P4; 098f4c061ea1).
    """
    if not pmu:
        return "no virtual PMU: enable_pmu is off, or CPUID.0AH says version 0"
    if platform.facility.format != ARCH:
        if cpuid.leaf07.arch_lbr:
            return "CPUID.7.EDX[19] is 1, and the host's LBRs are model-specific"
        if cpuid.signature != platform.cpuid.signature:
            return "model-specific LBRs need the host's model in CPUID.1:EAX"
        if design.wants_format and not capabilities & 0x3F:
            return "IA32_PERF_CAPABILITIES.LBR_FMT is 0"
        return ""
    if not offers(design, platform):
        return "KVM cannot virtualize the LBRs here: the VMX controls or the PMU are missing"
    if not cpuid.leaf07.arch_lbr:
        return "CPUID.7.EDX[19] is 0"
    leaf, host = cpuid.leaf1c, platform.cpuid.leaf1c
    if leaf is None or host is None or not leaf.depths:
        return "CPUID.1CH is not there, or offers no depth"
    if design.highest_depth_only:
        if leaf.eax & 0xFF != _highest(host):
            return f"CPUID.1CH offers depths {leaf.depths}, not {host.max_depth} alone"
    elif not set(leaf.depths) <= set(host.depths):
        return f"CPUID.1CH offers depths {leaf.depths}, the host {host.depths}"
    if design.wants_long_mode and not cpuid.long_mode:
        return "the guest has no long mode (CPUID.80000001H:EDX[29])"
    return _contradiction(cpuid) if design.checks_leaves else ""


def _contradiction(cpuid: Cpuid) -> str:
    """Return where leaf 0DH contradicts itself about component 15: a guest that sets XSS[15] would die of it."""
    announced = cpuid.leaf0d1.ecx & COMPONENT_BIT
    size = cpuid.component(COMPONENT).size
    if announced and size != LBR_COMPONENT.size:
        return f"CPUID.0DH.1:ECX[15] is 1, and 0DH.15 says {size} bytes instead of {LBR_COMPONENT.size}"
    if size and not announced:
        return "CPUID.0DH.15 describes the LBRs, and 0DH.1:ECX[15] is 0"
    if announced and not cpuid.leaf0d1.xsaves:
        return "CPUID.0DH.1:ECX[15] is 1 without XSAVES"
    return ""


def _guest_facility(design: Design, platform: Platform, cpuid: Cpuid, pmu: int) -> Facility:
    """Return the facility the guest is told of, as far as the host's hardware has it."""
    host = platform.facility
    if host.format != ARCH or cpuid.leaf1c is None:
        return host._replace(pmu_version=pmu)
    leaf = _defined(cpuid.leaf1c)
    if not design.unfiltered_leaf:
        leaf = Leaf1C(leaf.eax, leaf.ebx & host.leaf.ebx, leaf.ecx & host.leaf.ecx, 0)
    tsx = bool(host.tsx and cpuid.leaf07.rtm)
    return architectural(leaf, pmu, tsx=tsx, linear_width=host.linear_width, xsaves=bool(cpuid.leaf0d1.xsaves))


def refreshed(design: Design, cpuid: Cpuid, xcr0: int, xss: int) -> Leaf0D1:
    """Return leaf 0DH.1 as the guest reads it: EBX is the compacted size for XCR0 | IA32_XSS as set now (P3)."""
    leaf = cpuid.leaf0d1
    if design.zeroes_xss_leaf and not leaf.xsaves:
        leaf = leaf._replace(ecx=0, edx=0)
    if not leaf.eax & (XSAVES | XSAVEC):
        return leaf
    size = COMPONENT_OFFSET
    for number, component in sorted(cpuid.components):
        if (xcr0 | xss) >> number & 1:
            size = (-(-size // 64) * 64 if component.aligned else size) + component.size
    return leaf._replace(ebx=size)


def instruction(design: Design, state: State, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """Return what CPUID comes to in the guest; a leaf that is not of this model is all 0."""
    cpuid = state.cpuid
    if leaf == 1:
        return cpuid.signature, 0, cpuid.pdcm << 15, 0
    if leaf == 7 and subleaf == 0:
        return cpuid.leaf07
    if leaf == 0xA:
        return cpuid.leaf0a
    if leaf == 0xD and subleaf == 0:
        return cpuid.leaf0d
    if leaf == 0xD and subleaf == 1:
        return refreshed(design, cpuid, state.xcr0, state.guest.xss)
    if leaf == 0xD:
        return cpuid.component(subleaf)
    if leaf == 0x1C and subleaf == 0:
        return cpuid.leaf1c or Leaf1C()
    if leaf == 0x80000001:
        return 0, 0, 0, cpuid.long_mode << 29
    return 0, 0, 0, 0
