"""The branches of a bare-metal image as QEMU's system emulation steps it: another engine, another decoder.

`qemu-system-x86_64 -singlestep -d exec,nochain` logs each instruction's address and ring before it runs; `objdump` says
how long each is and what it is called. An instruction that is followed by anything but its successor was a branch, or
met an exception.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path

needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86_64: install qemu-system-x86"
)

# cs_base/pc/flags: the ring is flags[1:0].
_LINE = re.compile(r"^Trace \d+: 0x[0-9a-f]+ \[[0-9a-f]+/([0-9a-f]+)/([0-9a-f]+)/")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(?:\t(\S.*))?$", re.MULTILINE)
# Where images lie: the firmware's instructions are not logged.
LOG = "-singlestep -d exec,nochain -dfilter 0x400000..0x7fffff"
EXIT = "isa-debug-exit,iobase=0xf4,iosize=4"
_ALWAYS = ("jmp", "ret", "iretq", "lret", "lretq", "ljmp", "syscall", "sysretq", "sysretl")
_PREFIXES = ("bnd", "notrack", "rep", "repz", "repnz", "lock")


class Step(NamedTuple):
    """An instruction that began: its address and ring."""

    address: int
    ring: int


def steps(image: Path, append: str, folder: Path, until: int) -> list[Step]:
    """Return what QEMU stepped through, up to the instruction at `until`."""
    log = folder / "qemu.log"
    command = f"qemu-system-x86_64 -display none -no-reboot -cpu max -m 64 -accel tcg -serial null -monitor none {LOG}"
    words = [*command.split(), "-D", str(log), "-kernel", str(image), "-append", append, "-device", EXIT]
    subprocess.run(words, capture_output=True, timeout=120, check=False)
    found: list[Step] = []
    for line in log.read_text().splitlines():
        if begun := _LINE.match(line):
            found.append(Step(int(begun[1], 16), int(begun[2], 16) & 3))
        elif line.startswith("Stopped execution"):  # it did not begin after all, and will be logged again
            found.pop()
    end = [index for index, step in enumerate(found) if step.address == until]
    assert end, "QEMU did not get to the end"
    return found[: end[-1] + 1]


def listing(image: Path) -> dict[int, tuple[int, str]]:
    """Return address -> (length, mnemonic and operands) of an image's code, by objdump."""
    text = subprocess.run(
        ["objdump", "-d", "-w", f"{image}.elf"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return {int(at, 16): (len(code.split()), words or "") for at, code, words in _INSTRUCTION.findall(text)}


def kind(words: str) -> str:
    """Return the name of a branch kind by AT&T mnemonic and operands; OTHER for all that is no near branch."""
    mnemonic, *operands = [word for word in words.split() if word not in _PREFIXES]
    indirect = bool(operands) and operands[0].startswith("*")
    if mnemonic == "jmp":
        return "IND_JMP" if indirect else "REL_JMP"
    if mnemonic == "call":
        return "IND_CALL" if indirect else "REL_CALL"
    if mnemonic == "ret":
        return "RET"
    return "COND" if mnemonic[0] == "j" or mnemonic.startswith("loop") else "OTHER"


def branches(image: Path, append: str, folder: Path, first: int, last: int) -> list[tuple[int, int, str]]:
    """Return (from, to, kind) of each branch and exception from the instruction at `first` to that at `last`."""
    code = listing(image)
    stepped = steps(image, append, folder, last)
    start = [step.address for step in stepped].index(first)
    taken = []
    for step, after in zip(stepped[start:], stepped[start + 1 :], strict=False):
        length, words = code[step.address]
        if after.address != step.address + length or words.split()[0] in _ALWAYS:
            near = step.ring == after.ring and kind(words)
            taken.append((step.address, after.address, near or "OTHER"))
    return taken
