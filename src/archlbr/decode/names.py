"""From what a user types to a register: numbers as rdmsr and the manual write them, names of the manual and of Linux.

`cli/decode.py` feeds it words, `register` takes the index. Authority: rdmsr(1); arch/x86/include/asm/msr-index.h for
the kernel's names; reference profile-tools.md 6.
"""

from __future__ import annotations

import re
from functools import cache

from archlbr.arch import msrs
from archlbr.errors import InputError

# The kernel's spelling; a name that ends in {x} is a series.
KERNEL_NAMES: dict[str, msrs.Msr] = {
    "MSR_ARCH_LBR_CTL": msrs.IA32_LBR_CTL,
    "MSR_ARCH_LBR_DEPTH": msrs.IA32_LBR_DEPTH,
    "MSR_ARCH_LBR_FROM_{x}": msrs.IA32_LBR_FROM_IP,
    "MSR_ARCH_LBR_TO_{x}": msrs.IA32_LBR_TO_IP,
    "MSR_ARCH_LBR_INFO_{x}": msrs.IA32_LBR_INFO,
    "MSR_IA32_LASTINTFROMIP": msrs.IA32_LER_FROM_IP,
    "MSR_IA32_LASTINTTOIP": msrs.IA32_LER_TO_IP,
    "MSR_LBR_TOS": msrs.MSR_LASTBRANCH_TOS,
    "MSR_LBR_INFO_{x}": msrs.MSR_LBR_INFO,
    "MSR_IA32_DEBUGCTLMSR": msrs.IA32_DEBUGCTL,
    "MSR_IA32_PERF_CAPABILITIES": msrs.IA32_PERF_CAPABILITIES,
    "MSR_IA32_XSS": msrs.IA32_XSS,
    "MSR_CORE_PERF_GLOBAL_STATUS": msrs.IA32_PERF_GLOBAL_STATUS,
    "MSR_CORE_PERF_GLOBAL_CTRL": msrs.IA32_PERF_GLOBAL_CTRL,
    "MSR_CORE_PERF_GLOBAL_OVF_CTRL": msrs.IA32_PERF_GLOBAL_STATUS_RESET,
    "MSR_CORE_PERF_FIXED_CTR_CTRL": msrs.IA32_FIXED_CTR_CTRL,
}

PREFIXES = ("MSR_ARCH_", "MSR_IA32_", "IA32_", "MSR_")
HEX = re.compile(r"(?:0x)?([0-9a-f]+)h?", re.IGNORECASE)
WAY_OUT = "name one as IA32_LBR_CTL or LBR_CTL, or give its number in hexadecimal, as 0x14ce or 14ceH"


def _spell(pattern: str, x: int) -> str:
    """Return the name of register `x` of a series: `IA32_LBR_x_INFO` -> `IA32_LBR_3_INFO`."""
    if "{x}" in pattern:
        return pattern.replace("{x}", str(x))
    if "_x" in pattern:
        return pattern.replace("_x", f"_{x}")
    return re.sub(r"x$", str(x), pattern)


def name_of(register: msrs.Msr, x: int) -> str:
    """Return the manual's name of register `x` of a series, or of the register."""
    return register.name if register.count == 1 else _spell(register.name, x)


@cache
def known_names() -> dict[str, int]:
    """Return name -> MSR index: the manual's names, Linux's, and both without their prefixes, in capitals."""
    full: dict[str, int] = {}
    patterns = [(register.name, register) for register in msrs.MSRS] + list(KERNEL_NAMES.items())
    for pattern, register in patterns:
        for x in range(register.count):
            spelled = _spell(pattern, x) if register.count > 1 else pattern
            full.setdefault(spelled.upper(), register.at(x))
    short: dict[str, int] = {}
    for name, index in full.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
        short.setdefault(name[len(prefix) :], index)
    return short | full


def parse_msr(text: str) -> int:
    """Return the index of the register a user names; InputError when we know none of that name or number.

    A bare number is hexadecimal, as the manual writes registers.
    """
    index = known_names().get(text.upper())
    if index is not None:
        return index
    number = HEX.fullmatch(text)
    if number is None:
        raise InputError(f"no register is called {text!r}: {WAY_OUT}")
    index = int(number[1], 16)
    if index not in msrs.BY_INDEX:
        raise InputError(f"MSR {index:X}H is none of the branch-record and performance-monitoring registers: {WAY_OUT}")
    return index


def parse_value(text: str) -> int:
    """Return a 64-bit value; InputError when it is none. A bare number is hexadecimal, as rdmsr prints values."""
    number = HEX.fullmatch(text)
    if number is None:
        raise InputError(f"{text!r} is not a register's value: give it in hexadecimal, as rdmsr prints it")
    value = int(number[1], 16)
    if value >> 64:
        raise InputError(
            f"{text!r} does not fit in 64 bits: give a register's value in hexadecimal, as rdmsr prints it"
        )
    return value


def parse_bits(text: str) -> tuple[int, int]:
    """Return (high, low) of `rdmsr -f h:l`; InputError when they are no bits of a register."""
    found = re.fullmatch(r"(\d{1,2}):(\d{1,2})", text)
    if found is None or not 63 >= int(found[1]) >= int(found[2]):
        raise InputError(f"{text!r} is not a bit field: give HIGH:LOW, as 59:56, with 63 >= HIGH >= LOW")
    return int(found[1]), int(found[2])
