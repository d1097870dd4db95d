"""A vCPU whose processor is shared: each access that exits lets the host run, and what a guest reads is judged.

The registers' rules are `machine.vcpu`'s, hence the vPMU's step; when the LBRs are this guest's is `machine.pcpu`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archlbr.arch import msrs
from archlbr.arch.xsave import COMPONENT_BIT, COMPONENT_OFFSET, ENTRY_0, ENTRY_SIZE, SIZE
from archlbr.lbr.compiled import words as w
from archlbr.lbr.state import ARCH
from archlbr.machine.vcpu import Vcpu
from archlbr.vpmu.actions import VmEntry, VmExit
from archlbr.vpmu.interception import decided, enabled, guest_ctl, live
from archlbr.vpmu.registers import BY_INDEX

if TYPE_CHECKING:
    from archlbr.machine.pcpu import Pcpu

_ALL: Final = msrs.CTL_OS | msrs.CTL_USR | msrs.CTL_KINDS
_DEPTH, _SELECT = msrs.IA32_LBR_DEPTH.index, msrs.MSR_LBR_SELECT.index
_FROM: Final = {
    msr.index + x: x for msr in (msrs.IA32_LBR_FROM_IP, msrs.MSR_LASTBRANCH_FROM_IP) for x in range(msr.count)
}


class SharedVcpu(Vcpu):
    """One guest's vCPU on a pCPU that others run on too; alone until it joins one."""

    _pcpu: Pcpu | None = None
    _number = 0

    def join(self, pcpu: Pcpu, number: int) -> None:
        """Share a processor; the vCPU is out of the guest."""
        self._pcpu, self._number = pcpu, number
        self._access(VmExit(), 0)

    def left(self) -> None:
        """VM exit, as far as the vPMU goes."""
        self._access(VmExit(), 0)

    def entered(self, owned: int) -> None:
        """VM entry, as far as the vPMU goes; owned: the host's step says so."""
        self._own(owned)
        self._access(VmEntry(), 0)

    def _own(self, owned: int) -> None:
        self.state = decided(self.design, self.state._replace(owned=owned, event=1))

    def records_all(self) -> bool:
        """Say whether the guest's own controls admit every branch now: what it must find can then be counted."""
        if self.state.guest.frozen:
            return False
        if self.state.rules.flavour == ARCH:
            return guest_ctl(self.design, self.state) & _ALL == _ALL
        return int(self._lbr[w.SELECT]) == 0

    def rdmsr(self, msr: int) -> int | None:
        """Return a register's value, None for #GP, ENGINES_OWN for what the engine keeps."""
        pcpu, number = self._pcpu, self._number
        if pcpu is None or (msr not in BY_INDEX and msr not in self._entries):
            return super().rdmsr(msr)
        if msr not in self._entries or not self.state.rules.usable:
            value = super().rdmsr(msr)
            pcpu.leave(number, "exit")
            pcpu.back(number)
            return value
        passes = self._entries[msr] < self.state.vmcs.passthrough
        if not passes:
            pcpu.leave(number, "read")
            self._own(pcpu.owns(number))
        value = super().rdmsr(msr)
        if not passes:
            pcpu.back(number)
        if msr in _FROM and value is not None:
            slot, age = self._placed(_FROM[msr])
            pcpu.read(number, slot if value else -1, age)
        return value

    def wrmsr(self, msr: int, value: int) -> bool | int:
        """Write a register; False for #GP, ENGINES_OWN for what the engine keeps."""
        pcpu, number = self._pcpu, self._number
        if pcpu is None or (msr not in BY_INDEX and msr not in self._entries):
            return super().wrmsr(msr, value)
        if msr in self._entries and self.state.rules.usable:
            passes = self._entries[msr] < self.state.vmcs.passthrough
            if not passes:
                pcpu.leave(number, "read")
                self._own(pcpu.owns(number))
            done = super().wrmsr(msr, value)
            pcpu.wrote(number, select=msr == _SELECT)
            if not passes:
                pcpu.back(number)
            return done
        done = super().wrmsr(msr, value)
        if msr == _DEPTH and done:
            pcpu.wrote(number)
        pcpu.leave(number, "exit")
        pcpu.back(number)
        return done

    def xsaves(self) -> bytes | int:
        """Return an area as XSAVES writes it, or the vector of the fault; what the guest is given is judged."""
        pcpu, number = self._pcpu, self._number
        if pcpu is None:
            return super().xsaves()
        exits = self.state.vmcs.xss_exiting & COMPONENT_BIT
        if exits:
            pcpu.leave(number, "read")
            self._own(pcpu.owns(number))
        saved = self._emulated_xsaves() if exits else super().xsaves()
        if exits:
            pcpu.back(number)
        if isinstance(saved, bytes):
            for x, at in enumerate(range(COMPONENT_OFFSET + ENTRY_0, COMPONENT_OFFSET + SIZE, ENTRY_SIZE)):
                if int.from_bytes(saved[at : at + 8], "little"):
                    pcpu.read(number, *self._placed(x))
        return saved

    def xrstors(self, area: bytes) -> int:
        """Load the component; return 0, or the vector of the fault. What it enables is seen at once."""
        pcpu, number = self._pcpu, self._number
        vector = super().xrstors(area)
        if pcpu is not None:
            pcpu.wrote(number)
            pcpu.leave(number, "exit")
            pcpu.back(number)
        return vector

    def enabled(self) -> int:
        """Return the guest's own enable bit."""
        if self.state.rules.flavour == ARCH:
            ctl = int(self._lbr[w.CTL]) if live(self.design, self.state) else self.state.guest.ctl
            return ctl & msrs.CTL_LBREN
        if self._debugged(int(self._lbr[w.DEBUGCTL])):
            return 0
        return enabled(self.state.rules.flavour, self.state.guest)

    # The slot of a FROM register, and how many records are newer.
    def _placed(self, x: int) -> tuple[int, int]:
        head, depth = (int(self._lbr[w.HEAD]) - w.RING) // w.STRIDE, int(self._lbr[w.DEPTH])
        if self.state.rules.flavour == ARCH:
            return (head - x) % depth, x
        return x, (head - x) % depth
