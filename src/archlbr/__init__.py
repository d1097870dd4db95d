"""Architectural LBR for virtual machines: the facility, the vPMU in front of it and the host's perf beside it."""

__version__ = "0.1.0"
