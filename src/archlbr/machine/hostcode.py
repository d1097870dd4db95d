"""Host code: a fragment that stands for the hypervisor's handlers, executed at host addresses.

`machine.pcpu` runs it wherever the host runs: between VM exit and VM entry, in the scheduler, in a host task. It is
real code on an engine of its own, whose hook records its branches into the pCPU's LBRs under whatever controls these
have, so that a record of the host's has an address of the host's. What KVM really executes there is not modelled.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from unicorn import x86_const as x86

from archlbr.cpu import words as at
from archlbr.machine import boot
from archlbr.machine.board import Board

if TYPE_CHECKING:
    from archlbr.machine.models import Model

# A part of the kernel's half that no Linux guest of 3 GiB executes in: far beyond its direct map's end.
HOST: Final = range(0xFFFF_B000_0020_0000, 0xFFFF_B000_0020_1000)
_AT: Final = 0x200000
_MEMORY: Final = 64 << 20
_ENTRY_OF: Final = 8 * ((HOST.start >> 39) & 511)
# loop: call leaf; test cl, 1; jz even; nop; even: dec ecx; jnz loop; jmp out; out: hlt. leaf: jmp back; back: ret
MOST_BRANCHES: Final = 5  # of a round
_CODE: Final = bytes.fromhex("e80d000000 f6c101 7401 90 ffc9 75f1 eb00 f4 eb00 c3")


class HostCode:
    """The host's code on one pCPU."""

    def __init__(self, model: Model) -> None:
        self.board = Board(model, _MEMORY, lambda _byte: None)
        self.board.memory[_AT : _AT + len(_CODE)] = _CODE
        self.board.start(HOST.start)
        self.board.memory[boot.PAGE_TABLES + _ENTRY_OF : boot.PAGE_TABLES + _ENTRY_OF + 8] = struct.pack(
            "<Q", boot.PAGE_TABLES + 4096 | 3
        )

    def run(self, rounds: int) -> int:
        """Execute the fragment's loop so many times; return how many branches it took."""
        board = self.board
        words = board.words
        before = int(words[at.TAKEN])
        board.uc.reg_write(x86.UC_X86_REG_RCX, rounds)
        words[at.CURRENT] = 0  # nothing of the host's branches to the fragment's first instruction
        words[at.UNUSUAL] = 0
        words[at.REASON] = at.REASON_NONE
        words[at.DEADLINE] = 1 << 62
        board.engine.run(HOST.start, 0)
        return int(words[at.TAKEN]) - before
