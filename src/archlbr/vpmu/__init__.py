"""The hypervisor's virtual PMU in front of the LBRs: what the guest reaches directly and what is intercepted.

    state = boot(design, platform, cpuid)
    state, outcome = step(design, platform, state, action)

design: a row of `designs` (ARCHLBR by default, SERIES_V2 as posted). platform: the host, `state.platform`. cpuid: the
guest's leaves, `cpuid.Cpuid`; `cpuid.supported` is what KVM offers. action, outcome: `actions` and `lbr.actions`.
Both functions are in `archlbr.vpmu.step`; `archlbr.vpmu.snapshot` saves and restores a vCPU.
"""
