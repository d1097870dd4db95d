"""What a design is: one choice for each question on which the series, its reviewers and the architecture part ways.

A design is data. `step` and the modules under it ask it; nothing is overridden, so that two designs can be read side by
side, field by field (`series_v2`, `archlbr`), and one wrong choice can be seeded with `_replace`. A field is 1 for what
its name says and 0 for its opposite. Authority: each `Defect` cites the patch, the message and the objection.
"""

from __future__ import annotations

from typing import NamedTuple


class Design(NamedTuple):
    """The choices, in the order of the patches.

    Enumeration:
      opt_out               the feature bit is in the mask common to all vendors, not set where it is fully supported
      highest_depth_only    leaf 1CH offers the host's highest depth alone, and the guest's DEPTH is fixed to it
      refuses_cpuid         an unsuitable leaf 1CH fails KVM_SET_CPUID2, rather than leaving the LBRs off
      unfiltered_leaf       leaf 1CH's EBX and ECX go to the guest, and legal CTL bits follow, whatever the host has
      zeroes_xss_leaf       0DH.1 ECX and EDX become 0 without XSAVES, whatever userspace said
      xss_for_every_guest   legal XSS bits are the host's, whatever the guest's CPUID says
      checks_leaves         7.EDX[19], 1CH and 0DH must agree with each other, or the LBRs are off
      wants_long_mode       a guest without long mode has no LBRs, since SMM would lose LBREn
      wants_format          legacy LBRs need a PERF_CAPABILITIES.LBR_FMT other than 0

    Registers:
      lists_records         FROM, TO, INFO and LER are in the save list
      lists_debugctl        IA32_DEBUGCTL is in the save list
      virtual_ler           the LER registers are the guest's own, rather than absent
      raw_records           an intercepted entry register is read and written in the hardware, whoever owns it
      raw_depth             a write of DEPTH wipes the hardware, whoever owns it

    Ownership:
      keeps_records         entries move between hardware and guest at each change of owner and of vCPU
      lazy_release          LBREn = 0 at the next time slice gives the LBRs up, with what they hold
      loads_unowned         VM entry loads the guest's LBREn even if the guest does not own the LBRs
      restores_host_ctl     VM exit gives the host its IA32_LBR_CTL back
      xss_exiting           XSAVES and XRSTORS of component 15 exit while the guest does not own the LBRs
      xrstors_asks          LBREn set by XRSTORS asks for the LBRs as WRMSR does

    Events:
      freezes_v4            a PMI freezes by LBR_FRZ where the guest's PMU is of version 4 or later
      db_wants_event        an injected #DB clears LBREn only while the vLBR event exists
      nmi_clears            an injected NMI clears LBREn when the queue holds a stale #DB
      init_clears           INIT clears LBREn while the vLBR event exists
      warm_is_cold          a warm reset is a cold one: CTL = 0
      reset_wipes           a cold reset clears entries, LER and DEPTH
      smram_needs_lm        SMI saves and clears LBREn only for guests with long mode
      rsm_clobbers          RSM writes CTL = saved LBREn, and loses every other bit
      keeps_freeze_in_smm   DEBUGCTL.FREEZE_WHILE_SMM stays as the host has it while the guest runs

    Nested:
      strips_late           DEBUGCTL bit 0 reaches vmcs12 before it is dropped
      l2_runs_open          L2 runs with whatever IA32_LBR_CTL the processor holds, and leaves it so
    """

    name: str
    opt_out: int
    highest_depth_only: int
    refuses_cpuid: int
    unfiltered_leaf: int
    zeroes_xss_leaf: int
    xss_for_every_guest: int
    checks_leaves: int
    wants_long_mode: int
    wants_format: int
    lists_records: int
    lists_debugctl: int
    virtual_ler: int
    raw_records: int
    raw_depth: int
    keeps_records: int
    lazy_release: int
    loads_unowned: int
    restores_host_ctl: int
    xss_exiting: int
    xrstors_asks: int
    freezes_v4: int
    db_wants_event: int
    nmi_clears: int
    init_clears: int
    warm_is_cold: int
    reset_wipes: int
    smram_needs_lm: int
    rsm_clobbers: int
    keeps_freeze_in_smm: int
    strips_late: int
    l2_runs_open: int


class Defect(NamedTuple):
    """Where a design is known to be wrong.

    field: of Design. patch: P1 to P15, or base. message: where it was posted. said: who objected and where, or
    "derived". what: what the design does. instead: what the architecture or the reviewer asks for.
    """

    field: str
    patch: str
    message: str
    said: str
    what: str
    instead: str
