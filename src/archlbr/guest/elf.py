"""The program file: an x86-64 ELF executable or a script, read the way execve(2) reads it.

`machine.userland` loads what this module describes. A file that cannot be run is a `Refusal`: the errno the guest's
execve gets, and the sentence a person gets when it is the program given on the command line. Sources: elf(5),
fs/binfmt_elf.c, fs/binfmt_script.c.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import Final, NamedTuple

PAGE: Final = 4096

ET_EXEC: Final = 2
ET_DYN: Final = 3
EM_X86_64: Final = 62
PT_LOAD: Final = 1
PT_INTERP: Final = 3
PT_GNU_STACK: Final = 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_MACHINES: Final = {
    3: "32-bit x86",
    40: "32-bit Arm",
    183: "AArch64",
    243: "RISC-V",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
}
_SCRIPT_DEPTH: Final = 5  # fs/exec.c: exec_binprm() follows this many #! lines, not one more
_BLANKS: Final = b" \t"  # fs/binfmt_script.c: spacetab(); a carriage return is part of a name


class Segment(NamedTuple):
    """A PT_LOAD program header; sizes and addresses in bytes."""

    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int

    @property
    def protection(self) -> int:
        """The segment's rights as mmap's PROT_ bits."""
        return (1 if self.flags & PF_R else 0) | (2 if self.flags & PF_W else 0) | (4 if self.flags & PF_X else 0)


class Image(NamedTuple):
    """An ELF executable or interpreter that can be mapped."""

    path: str
    kind: int
    entry: int
    phoff: int
    phnum: int
    phentsize: int
    segments: tuple[Segment, ...]
    interpreter: str
    executable_stack: int

    @property
    def low(self) -> int:
        """The page where the lowest segment starts."""
        return min(segment.vaddr for segment in self.segments) & -PAGE

    @property
    def high(self) -> int:
        """The page boundary after the highest segment."""
        return (max(segment.vaddr + segment.memsz for segment in self.segments) + PAGE - 1) & -PAGE


class Refusal(NamedTuple):
    """Why a file cannot be run: the errno for execve, and a sentence with the way out."""

    errno: int
    reason: str


class Program(NamedTuple):
    """What execve resolves to: the ELF file to map, its interpreter, and the argument vector after any #! lines."""

    image: Image
    interpreter: Image | None
    argv: tuple[bytes, ...]


def read_image(path: str) -> Image | Refusal:
    """Return the ELF executable in a file, or why it is none that this machine runs."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER.size)
            if head[:4] != b"\x7fELF":
                return Refusal(errno.ENOEXEC, f"{path} is not an ELF program; give an x86-64 Linux executable")
            if len(head) < 20:
                return Refusal(errno.ENOEXEC, f"{path} is cut off after {len(head)} bytes; build or fetch it again")
            machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
            if machine != EM_X86_64:
                name = _MACHINES.get(machine, f"machine {machine}")
                return Refusal(errno.ENOEXEC, f"{path} is a program for {name}; give one built for x86-64")
            if head[4] != 2:
                return Refusal(errno.ENOEXEC, f"{path} is a 32-bit program (x32); give a 64-bit one")
            if len(head) < _HEADER.size:
                return Refusal(errno.ENOEXEC, f"{path} is cut off after {len(head)} bytes; build or fetch it again")
            fields = _HEADER.unpack(head)
            kind, entry, phoff, phentsize, phnum = fields[1], fields[4], fields[5], fields[9], fields[10]
            if kind not in (ET_EXEC, ET_DYN):
                return Refusal(errno.ENOEXEC, f"{path} is an ELF file of type {kind}, not an executable; link it first")
            if phentsize != _PROGRAM_HEADER.size or not 0 < phnum < 512:
                return Refusal(errno.ENOEXEC, f"{path} has damaged program headers; build or fetch it again")
            size = os.fstat(file.fileno()).st_size
            table = os.pread(file.fileno(), phentsize * phnum, phoff) if phoff <= size else b""
            if len(table) < phentsize * phnum:
                return Refusal(errno.ENOEXEC, f"{path} is cut off in its program headers; build or fetch it again")
            segments, interpreter, executable_stack = [], "", 1
            for index in range(phnum):
                p_type, flags, offset, vaddr, _, filesz, memsz, _ = _PROGRAM_HEADER.unpack_from(
                    table, index * phentsize
                )
                if p_type == PT_LOAD and memsz:
                    if filesz > memsz or vaddr + memsz > 1 << 47 or (vaddr - offset) % PAGE:
                        return Refusal(errno.ENOEXEC, f"{path} has a damaged segment at {vaddr:#x}; build it again")
                    segments.append(Segment(flags, offset, vaddr, filesz, memsz))
                elif p_type == PT_INTERP:
                    # fs/binfmt_elf.c, load_elf_binary(): 2 to PATH_MAX bytes with a zero at their end.
                    named = os.pread(file.fileno(), filesz, offset) if 2 <= filesz <= PAGE and offset <= size else b""
                    if len(named) < filesz or not named.endswith(b"\0"):
                        return Refusal(errno.ENOEXEC, f"{path} has a damaged name of its interpreter; build it again")
                    interpreter = os.fsdecode(named.split(b"\0")[0])
                elif p_type == PT_GNU_STACK:
                    executable_stack = int(bool(flags & PF_X))
    except OSError as error:
        return Refusal(error.errno or errno.EIO, f"cannot read {path}: {error.strerror}")
    if not segments:
        return Refusal(errno.ENOEXEC, f"{path} has nothing to load; give an executable")
    if any(segment.offset + segment.filesz > size for segment in segments):
        return Refusal(errno.ENOEXEC, f"{path} is cut off: a segment ends after the file's {size} bytes")
    return Image(path, kind, entry, phoff, phnum, phentsize, tuple(segments), interpreter, executable_stack)


def _permitted(path: str) -> Refusal | None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return Refusal(error.errno or errno.ENOENT, f"cannot run {path}: {error.strerror}")
    if stat.S_ISDIR(mode) or not stat.S_ISREG(mode):
        return Refusal(errno.EACCES, f"cannot run {path}: it is not a regular file; name an executable")
    # access(2) lets root execute only what somebody may execute, as execve does.
    if not os.access(path, os.X_OK):
        return Refusal(errno.EACCES, f"cannot run {path}: no execute permission; chmod +x it")
    return None


def resolve(path: str, argv: tuple[bytes, ...]) -> Program | Refusal:
    """Return what execve(path, argv) runs, following #! lines and the ELF interpreter."""
    asked = path
    for _ in range(_SCRIPT_DEPTH + 1):
        refused = _permitted(path)
        if refused is not None:
            return refused
        try:
            with open(path, "rb") as file:
                line = file.read(256)
        except OSError as error:
            return Refusal(error.errno or errno.EIO, f"cannot read {path}: {error.strerror}")
        if line[:2] != b"#!":
            break
        named = line[2:].split(b"\n")[0].strip(_BLANKS)
        # fs/binfmt_script.c, load_script(): a zero ends the name, and with it the line, or else the argument.
        name, zero, _ = named.replace(b"\t", b" ").split(b" ")[0].partition(b"\0")
        if not name:
            return Refusal(errno.ENOEXEC, f"{path} names no interpreter after #!; write one there")
        rest = b"" if zero else named[len(name) :].lstrip(_BLANKS).partition(b"\0")[0]
        if name.endswith(b"\r") and not os.path.exists(name):
            return Refusal(errno.ENOENT, f"{path} ends its #! line with a carriage return; save it with Unix line ends")
        argv = (name, *([rest] if rest else []), os.fsencode(path), *argv[1:])
        path = os.fsdecode(name)
    else:
        return Refusal(errno.ELOOP, f"{asked}: too many scripts that run scripts; name the program itself")
    image = read_image(path)
    if isinstance(image, Refusal):
        return image
    if not image.interpreter:
        return Program(image, None, argv)
    interpreter = read_image(image.interpreter)
    if isinstance(interpreter, Refusal):
        missing = interpreter.errno == errno.ENOENT
        advice = "install it, or link the program statically" if missing else interpreter.reason
        # fs/binfmt_elf.c, load_elf_binary(): what is no interpreter is a bad library.
        number = errno.ELIBBAD if interpreter.errno == errno.ENOEXEC else interpreter.errno
        return Refusal(number, f"{path} needs the interpreter {image.interpreter}, which cannot be used: {advice}")
    return Program(image, interpreter, argv)


def find_program(name: str, search: str) -> str | None:
    """Return the file that a shell would run for `name`: itself when it has a slash, else the first on the search
    path.
    """
    if "/" in name:
        return name
    for folder in search.split(":"):
        candidate = os.path.join(folder or ".", name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None
