"""The page at a fixed address that compiled callbacks of the engine read: they get no argument of ours.

`supervisor` maps it once a process and writes most words; `undefined` asks for memory by some of them. A word holds an
address of the engine's code or of ours, or an offset into its CPUX86State (docs/decisions/014).
"""

from __future__ import annotations

from typing import Final

AT: Final = 0x1FFF_FE00_0000
SIZE: Final = 4096

# The engine's own functions, and its helpers as they were before ours stood in their place.
RAISE: Final = AT  # raise_exception_err: it does not return
DELIVER: Final = AT + 8  # x86_cpu_do_interrupt
HARDWARE_INTERRUPT: Final = AT + 16  # do_interrupt_x86_hardirq
COMPUTE_FLAGS: Final = AT + 24  # helper_cc_compute_all
PROBE: Final = AT + 32  # probe_access
SINGLE_STEP: Final = AT + 40  # helper_single_step
OWN_RDMSR: Final = AT + 48
OWN_WRMSR: Final = AT + 56
OWN_WRITE_CR: Final = AT + 64  # helper_write_crN
OWN_INVLPG: Final = AT + 72
OWN_SYSCALL: Final = AT + 80  # it calls the hooks of engines in ring 3

# Offsets into the state.
CPU_BEFORE_ENV: Final = AT + 128  # bytes from the engine's CPUState to its CPUX86State
ERROR_CODE: Final = AT + 136  # of an exception
EFER: Final = AT + 144
STAR: Final = AT + 152
LSTAR: Final = AT + 160
FMASK: Final = AT + 168
TSC_AUX: Final = AT + 176
FEATURES: Final = AT + 184  # CPUID.1:ECX; its bit 27 says that CR4 may have OSXSAVE

# What Python is asked and answers.
ASK: Final = AT + 256  # the Python function behind a C callback
ANSWER: Final = AT + 264  # the register it read
REACH_ADDRESS: Final = AT + 272  # the memory that a step of an unknown instruction asks for
REACH_SIZE: Final = AT + 280
REACH_ACCESS: Final = AT + 288
REACHED: Final = AT + 296  # where it lies in this process, 0 where no memory is
REACHED_NEXT: Final = AT + 304  # the same from the next page on

# The machine's.
CLOCK: Final = AT + 384  # address of the word that counts instructions
CLOCK_IDLE: Final = AT + 392  # what is added to it: time that passed without instructions
REMAPS: Final = AT + 400  # counts what may have changed the guest's translations
