"""The hypervisor's virtual PMU in front of the LBRs: what the guest reaches directly and what is intercepted."""
