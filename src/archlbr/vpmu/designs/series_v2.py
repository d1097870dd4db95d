"""`series-v2`: "Introduce Architectural LBR for vPMU" as posted on 25 November 2022, with its defects, each named.

It was never merged as a whole; that it behaves so is read from its diffs, not measured. Compare field by field with
`archlbr`. Authority: reference kvm-series.md A (the patches), C.4 (the objections).
"""

from __future__ import annotations

from archlbr.vpmu.designs.protocol import Defect, Design

SERIES_V2 = Design(
    name="series-v2",
    opt_out=1,
    highest_depth_only=1,
    refuses_cpuid=1,
    unfiltered_leaf=1,
    zeroes_xss_leaf=1,
    xss_for_every_guest=1,
    checks_leaves=0,
    wants_long_mode=0,
    wants_format=0,
    lists_records=0,
    lists_debugctl=0,
    virtual_ler=0,
    raw_records=1,
    raw_depth=1,
    keeps_records=0,
    lazy_release=1,
    loads_unowned=1,
    restores_host_ctl=0,
    xss_exiting=0,
    xrstors_asks=0,
    freezes_v4=0,
    db_wants_event=1,
    nmi_clears=1,
    init_clears=1,
    warm_is_cold=1,
    reset_wipes=0,
    smram_needs_lm=1,
    rsm_clobbers=1,
    keeps_freeze_in_smm=0,
    strips_late=1,
    l2_runs_open=1,
)


def _message(patch: int) -> str:
    """Return the message-id of patch n of v2 (kvm-series.md, head)."""
    return f"20221125040604.5051-{patch + 1}-weijiang.yang@intel.com"


def _defect(field: str, patch: int, said: str, what: str, instead: str) -> Defect:
    return Defect(field, f"P{patch}", _message(patch), said, what, instead)


DEFECTS: tuple[Defect, ...] = (
    _defect("opt_out", 15, "Sean Christopherson on P11 (Y9RLJsEGjXQ0IAlX)",
            "the feature bit is in the common mask, so that another vendor's processor with the bit offers it",
            "the bit is offered only where everything it needs is there"),
    _defect("highest_depth_only", 5, "Jim Mattson on v5 06/13",
            "one depth is offered, so that a vCPU can only move to hosts of that depth",
            "every depth of the host's leaf is offered"),
    _defect("refuses_cpuid", 15, "Sean Christopherson on P15",
            "KVM_SET_CPUID2 fails on another depth, and on an all-zero leaf 1CH without the feature",
            "it succeeds, and the LBRs are off"),
    _defect("unfiltered_leaf", 15, "Like Xu on v7 05/15",
            "EBX and ECX of leaf 1CH are the guest's word: a CTL bit the host lacks reaches the VMCS and entry fails",
            "bits the host lacks are not offered and fault"),
    _defect("zeroes_xss_leaf", 3, "Sean Christopherson on P3 (Y9LZhsqxRjMjbK3s)",
            "CPUID.0DH.1 ECX and EDX are forced to 0 without XSAVES",
            "they stay as userspace gave them"),
    _defect("xss_for_every_guest", 3, "derived; fixed for CET by 338543cbe033",
            "a guest without the LBRs may set IA32_XSS[15]", "legal bits follow the guest's CPUID"),
    _defect("checks_leaves", 15, "derived; bug 8c16dc047b5d in guests",
            "EDX[19], leaf 1CH and leaf 0DH may contradict each other and the LBRs are on",
            "an inconsistent CPUID leaves the LBRs off"),
    _defect("wants_long_mode", 13, "Sean Christopherson on P13 (Y9RMASMnzc3tPqvO)",
            "a guest without long mode has LBRs and silently loses LBREn over SMM", "such a guest has none"),
    _defect("wants_format", 5, "derived",
            "a legacy guest whose LBR_FMT is 0 gets LBRs", "LBR_FMT = 0 means none"),
    _defect("lists_records", 8, "Sean Christopherson on P8 (Y9RFngDO3ip9vTwi)",
            "the records are in no save list, so that a VMM must know them by itself", "each is listed"),
    Defect("lists_debugctl", "base", "CVE-2026-46014", "users-and-peers.md 3.2, bug 10",
           "IA32_DEBUGCTL is in no save list on VMX", "it is listed"),
    _defect("virtual_ler", 7, "text of v4",
            "LER is not supported, though XSAVES carries it", "the LER registers are the guest's own"),
    _defect("raw_records", 14, "Sean Christopherson on P14 (Y9RMbq1FgygCPRrZ)",
            "an intercepted record is read and written in the hardware, whoever owns it",
            "the guest's own value, from KVM's copy where the hardware holds another's"),
    _defect("raw_depth", 5, "Sean Christopherson on P5 (Y9QzLHNxS4K81SfU); Like Xu on v7 04/15",
            "a write of DEPTH wipes the hardware's records, whoever owns them", "it wipes the guest's own"),
    _defect("keeps_records", 14, "perf-kvm-contract.md I3, I4, I5b",
            "a change of owner neither saves nor wipes the records", "they are saved, and wiped for the next owner"),
    _defect("lazy_release", 6, "derived; perf-kvm-contract.md I7",
            "LBREn = 0 at a time slice's end gives the records up unread", "they stay until the guest overwrites them"),
    _defect("loads_unowned", 10, "Sean Christopherson on the cover letter",
            "entry loads the guest's LBREn though the records are the host's", "LBREn is masked in what is loaded"),
    _defect("restores_host_ctl", 10, "Sean Christopherson on P10; Jim Mattson on v5 06/13",
            "VM exit clears the host's IA32_LBR_CTL for good, for every vCPU", "the host's value is written back"),
    _defect("xss_exiting", 11, "derived; perf-kvm-contract.md A2",
            "XSAVES and XRSTORS reach the records while they are the host's", "they exit then"),
    _defect("xrstors_asks", 11, "derived",
            "LBREn set by XRSTORS creates no event", "it asks for the LBRs as WRMSR does"),
    _defect("freezes_v4", 6, "derived (base)",
            "no freeze for a guest PMU of version 4 or later", "LBR_FRZ"),
    _defect("db_wants_event", 12, "Sean Christopherson on P12 (Y9RLowPBbQFCqLRf)",
            "an injected #DB leaves LBREn alone without an event", "it clears LBREn always"),
    _defect("nmi_clears", 12, "Sean Christopherson on P12 (Y9RLowPBbQFCqLRf)",
            "an NMI clears LBREn when the queue's slot still holds vector 1", "an NMI leaves it alone"),
    _defect("init_clears", 12, "Sean Christopherson on P12 (Y9RLowPBbQFCqLRf)",
            "INIT clears LBREn, being taken for a warm reset", "INIT keeps every LBR register"),
    _defect("warm_is_cold", 10, "derived; the SDM quoted in P12",
            "a warm reset writes CTL = 0", "it clears LBREn and keeps the rest"),
    _defect("reset_wipes", 10, "derived",
            "a cold reset leaves the records in the hardware", "they read 0"),
    _defect("smram_needs_lm", 13, "Sean Christopherson on P13 (Y9RMASMnzc3tPqvO)",
            "without long mode an SMI neither saves nor clears LBREn", "it always does"),
    _defect("rsm_clobbers", 13, "Sean Christopherson on P13 (Y9RMASMnzc3tPqvO)",
            "RSM loses every bit of CTL but LBREn", "it restores LBREn and keeps the rest"),
    Defect("keeps_freeze_in_smm", "base", "lkml 2506.3/01585", "users-and-peers.md 3.2, bug 9",
           "the guest runs with its own DEBUGCTL[14], whatever the host had", "bit 14 stays the host's"),
    _defect("strips_late", 6, "Sean Christopherson on P6",
            "DEBUGCTL bit 0 is dropped after the copy into vmcs12", "before"),
    _defect("l2_runs_open", 10, "Sean Christopherson on P10; perf-kvm-contract.md A3",
            "L2 runs with whatever IA32_LBR_CTL the processor holds", "with vmcs12's value, or with LBREn = 0"),
)  # fmt: skip
