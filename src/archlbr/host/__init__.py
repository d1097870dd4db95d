"""lbr, vpmu and perf composed: pure steps, requests between KVM and perf routed as values."""

from archlbr.host.sampling import sample
from archlbr.host.state import Action, Cpu, Host, Moved, Setting, Told, initial
from archlbr.host.step import step

__all__ = ["Action", "Cpu", "Host", "Moved", "Setting", "Told", "initial", "sample", "step"]
