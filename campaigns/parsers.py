"""Every parser of bytes or words that somebody else wrote, behind one form: seeds, and a function that takes bytes.

`campaigns.fuzz` and `tests/fuzz` feed it. A parser may take what it gets or refuse it with an InputError, of which
`cli` makes one line; any other exception is a finding. Where a format ends with a checksum, half of the inputs get
theirs put right, so that what lies behind it is reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import subprocess
import zlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tests.profile import examples
from tests.vpmu.parts import Vcpu, leaves, old_part
from tests.vpmu.snapshots import saved, source

from archlbr.check import replay as lines
from archlbr.cli import decode as words
from archlbr.cli.replay import replay
from archlbr.conformance.select import selection
from archlbr.conformance.targets.recording import Recording
from archlbr.contract.lanes import model_of
from archlbr.decode.component import read_image
from archlbr.decode.dump import read_dump
from archlbr.decode.names import parse_bits, parse_msr, parse_value
from archlbr.errors import InputError
from archlbr.guest import elf
from archlbr.machine import image as machine_image
from archlbr.machine import images
from archlbr.machine import snapshot as machine
from archlbr.machine.models import SAPPHIRE_RAPIDS
from archlbr.perf.filters import parse_filter
from archlbr.profile import build_id
from archlbr.profile import images as files
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.text import preaggregated, script
from archlbr.profile.validate import validate
from archlbr.report.counts import count
from archlbr.report.lines import SourceLines
from archlbr.report.stacks import read_stacks
from archlbr.report.symbols import SymbolFile
from archlbr.vpmu import image as snapshot_image
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.designs.hypervisors import HYPERVISORS
from archlbr.vpmu.snapshot import restore

if TYPE_CHECKING:
    from collections.abc import Callable


class Parser(NamedTuple):
    """A parser. seeds: well-formed inputs. read: takes one input to the end. sealed: puts an input's checksum right."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], object]
    sealed: Callable[[bytes], bytes] | None = None


def feed(parser: Parser, content: bytes, seal: bool = False) -> str:
    """Give a parser one input; return the refusal, empty when it was taken."""
    if seal and parser.sealed is not None:
        content = parser.sealed(content)
    try:
        parser.read(content)
    except InputError as refusal:
        said = str(refusal)
    else:
        return ""
    assert said.strip(), "a refusal that says nothing"
    return said


_MEMORY = "/dev/shm"


@cache
def _folder() -> TemporaryDirectory[str]:
    # In memory where there is such a place: the same file is written a hundred thousand times.
    return TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)


def _file(content: bytes, name: str = "input") -> str:
    path = Path(_folder().name) / name
    path.write_bytes(content)
    path.chmod(0o755)
    return str(path)


def _perf_data() -> list[bytes]:
    path = _file(b"", "seed")
    with Writer(path, examples.ATTR) as writer:
        examples.record(writer)
    return [Path(path).read_bytes()]


def _read_perf_data(content: bytes) -> None:
    name = _file(content)
    with Reader(name) as reader:
        validate(reader, disassemble=False)
        for _ in script(reader):
            pass
    count(name)
    # Both refuse what is whole: that a profile has no call stacks, that the programs it names are not here.
    with contextlib.suppress(InputError):
        read_stacks(name)
    with Reader(name) as reader, contextlib.suppress(InputError):
        for _ in preaggregated(reader, "/opt/prog"):
            pass


@cache
def _targets() -> tuple[Vcpu, Vcpu]:
    return Vcpu(ARCHLBR, None, leaves((8, 16, 32))), old_part(ARCHLBR)


def _snapshots() -> list[bytes]:
    return [saved(source()), saved(_targets()[0]), saved(_targets()[1])]


def _read_snapshot(content: bytes) -> None:
    refusals = []
    for vcpu in _targets():
        for xrstors in (False, True):
            try:
                restore(ARCHLBR, vcpu.platform, vcpu.state, content, xrstors=xrstors)
            except InputError as refusal:
                refusals.append(refusal)
    if len(refusals) == 4:
        raise refusals[0]


def _seal_snapshot(content: bytes) -> bytes:
    body = bytearray(content[:-32].ljust(16, b"\0"))
    body[:8] = snapshot_image.MAGIC
    struct.pack_into("<II", body, 8, snapshot_image.VERSION, len(body) + 32)
    return bytes(body) + hashlib.sha256(body).digest()


_MACHINE_MEMORY = 1 << 20


def _machines() -> list[bytes]:
    """Return a machine with two pages that are not empty, laid down as `machine.snapshot` lays it down."""
    vcpu = SimpleNamespace(model=SAPPHIRE_RAPIDS, hypervisor=SimpleNamespace(name=next(iter(HYPERVISORS))))
    memory = np.zeros((_MACHINE_MEMORY // machine_image.PAGE, machine_image.PAGE // 8), np.uint64)
    memory[3:5] = 7
    packer = machine_image.Packer()
    whole = packer.preamble()
    whole += packer.frame(machine_image.HEAD, machine._head(SimpleNamespace(vcpu=vcpu, memory=bytes(_MACHINE_MEMORY))))
    for pages in machine_image.packed(memory, np.array([3, 4])):
        whole += packer.frame(machine_image.PAGES, pages)
    whole += packer.frame(machine_image.VCPU, saved(_targets()[0]))
    whole += packer.frame(machine_image.STATE, machine_image.pack_json({"words": [1, 2], "devices": {"uart": [0]}}))
    return [whole + packer.done()]


def _read_machine(content: bytes) -> None:
    stream = io.BytesIO(content)
    source_of_frames = machine_image.Unpacker(stream.read)
    board = SimpleNamespace(memory=memoryview(bytearray(_MACHINE_MEMORY)))
    received = machine.read(source_of_frames, lambda _head: board)
    source_of_frames.end()
    snapshot_image.unpack(received.parts.vcpu)
    machine_image.unpack_json(received.parts.state)


def _seal_machine(content: bytes) -> bytes:
    packer = machine_image.Packer()
    whole, at = packer.preamble(), 16
    kinds = (machine_image.HEAD, machine_image.PAGES, machine_image.VCPU, machine_image.STATE, machine_image.SENT)
    while at + 16 <= len(content):
        kind, _, length = struct.unpack_from("<4sIQ", content, at)
        if kind == machine_image.DONE:
            break
        frame = content[at + 16 : at + 16 + length]
        whole += packer.frame(kind if kind in kinds else machine_image.PAGES, frame)
        at += 16 + len(frame)
    return whole + packer.done()


_SOURCE = "int twice(int n) { return n > 1 ? twice(n - 1) * 2 : n; }\nvoid _start(void) { for (;;) twice(7); }\n"


@cache
def _programs() -> list[bytes]:
    found = []
    for form in ("-gdwarf-4", "-gdwarf-5"):
        for link in ("-static", "-pie"):
            out = Path(_folder().name) / "program"
            command = ["gcc", "-x", "c", "-O1", form, "-nostdlib", link, "-o", str(out), "-"]
            subprocess.run(command, input=_SOURCE.encode(), check=True)
            found.append(out.read_bytes())
    return found


def _run_program(content: bytes) -> None:
    program = elf.resolve(_file(content), (b"input", b"word"))
    if isinstance(program, elf.Refusal):
        raise InputError(program.reason)


def _name_places(content: bytes) -> None:
    name = _file(content)
    for cached in (files.segments, files.functions, build_id.build_id):
        cached.cache_clear()
    build_id.build_id(name)
    symbols, source_lines = SymbolFile(name), SourceLines(name)
    try:
        for offset in (0, 0x1000, 0x1010, 0x2000, (1 << 64) - 1):
            symbols.place(offset)
            source_lines.line(symbols.address(offset))
            source_lines.line(symbols.address(offset) + 0x400000)
    finally:
        source_lines.close()
    files.functions(name)
    files.segments(name)


@cache
def _replay_lines() -> list[bytes]:
    made = []
    for name, claim, choices, loop in (
        ("vlbr-6.1/toggled", "S1", (4, 0, 0, 2, 0, 1, 0, 2), None),
        ("vlbr-6.12/denied", "L1", (0, 0, 0, 0), 2),
        ("archlbr+save/lend", "G1", (1, 0, 1), None),
    ):
        model_of(name)
        made.append(lines.encode(lines.Line(name, claim, choices, loop)).encode())
    return made


def _replay(content: bytes) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        replay(content.decode(errors="surrogateescape"))


def _seal_line(content: bytes) -> bytes:
    body = b":".join(content.split(b":")[1:4]) or b"::"
    text = f"{lines.MAGIC}-{lines.VERSION}:".encode() + body
    # As `decode` takes it: without the white space around the line.
    spelled = text.decode(errors="surrogateescape").lstrip()
    with contextlib.suppress(UnicodeEncodeError):
        return f"{spelled}:{zlib.crc32(spelled.encode()):08x}".encode()
    return content


_RECORDING = b"""{"kind": "archlbr conformance recording", "version": 1, "target": "kvm", "known_as": ["kvm"],
"sessions": [
{"setup":["Setup","archlbr",["0x1"]],"asked":[["NewVm",["Setup"]]],"answers":[["Done"],["Value","0x7"]]},
{"setup":["Setup"],"asked":[["SaveList"]],"answers":[["Image","00ff"],["Indices",["0x14ce","0x1200"]]]},
{"setup":["Setup"],"asked":[["Look","0x0"],["Look","0x1"]],"lacks":"KVM_GET_XSAVE2"}
]}
"""


def _read_recording(content: bytes) -> None:
    Recording(_text(content), "input")


_DUMP = b"""CPU 0:
   0x00000000 0x00: eax=0x00000020 ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69
   0x00000007 0x00: eax=0x00000002 ebx=0xf1bf2ffb ecx=0x1b415f6e edx=0xbc814410
   0x0000000a 0x00: eax=0x07300805 ebx=0x00000000 ecx=0x00000007 edx=0x00008603
   0x0000000d 0x01: eax=0x0000001f ebx=0x00000a00 ecx=0x00009900 edx=0x00000000
   0x0000000d 0x0f: eax=0x00000328 ebx=0x00000000 ecx=0x00000001 edx=0x00000000
   0x0000001c 0x00: eax=0x4000000b ebx=0x00000007 ecx=0x00000007 edx=0x00000000
CPU 1:
   0x0000001c 0x00: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000
"""


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as refusal:
        raise InputError("not text") from refusal


def _read_dump(content: bytes) -> None:
    dumps = read_dump(_text(content), "input")
    words.cpuid_text(dumps)
    words.cpuid_json(dumps)


def _areas() -> list[bytes]:
    component = struct.pack("<2Q", 0x7F0005, 8) + b"".join(struct.pack("<3Q", 16 * x, 32, 1 << 60) for x in range(33))
    alone = component[:808].ljust(808, b"\0")
    header = struct.pack("<2Q", 0x8000, 0x8000000000008000 | 1 << 2) + bytes(48)
    return [alone, bytes(512) + header + bytes(256) + alone]


def _read_area(content: bytes) -> None:
    image = read_image(content, "input")
    words.image_text(image)
    words.image_json(image)


def _kernels() -> list[bytes]:
    image = bytearray(2 * 512 + 4096)
    image[0x1F1], image[0x201] = 1, 0x6A
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<I", image, 0x1F4, 256)
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<H", image, 0x236, 1)
    struct.pack_into("<QI", image, 0x258, 0x100000, 0x8000)
    return [bytes(image), _elf_image(1, 3, b""), _elf_image(2, 62, b""), _elf_image(2, 62, _MULTIBOOT)]


_MULTIBOOT = struct.pack("<III", images.HEADER_MAGIC, 3, -(images.HEADER_MAGIC + 3) & 0xFFFFFFFF)


def _elf_image(kind: int, machine: int, text: bytes) -> bytes:
    """Return an ELF file of 32 (kind 1) or 64 bits (2) with one segment at 1 MiB (System V ABI, chapter 4)."""
    text = text.ljust(64, b"\x90")
    identity = b"\x7fELF" + bytes([kind, 1, 1]) + bytes(9)
    place = 0x100000
    if kind == 1:
        head = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, place, 52, 0, 0, 52, 32, 1, 40, 0, 0)
        return identity + head + struct.pack("<8I", 1, 84, place, place, len(text), 4096, 5, 4096) + _MULTIBOOT + text
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, place, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return identity + head + struct.pack("<II6Q", 1, 5, 120, place, place, len(text), 4096, 4096) + text


def _load_image(content: bytes) -> None:
    memory = bytearray(2 << 20)
    initrd, append = (content[:100], "console=ttyS0") if content[:1] != b"\x7f" or _MULTIBOOT in content else (b"", "")
    images.load(memoryview(memory), content, "input", initrd, append)
    assert len(memory) == 2 << 20


def _spoken() -> list[bytes]:
    return [
        b"filter any_call,u,save_type",
        b"select not (row:12 or ctl) and vmm",
        b"msr IA32_LBR_3_FROM_IP",
        b"msr 14ceH",
        b"value 0x7f0005",
        b"bits 59:56",
    ]


def _hear(content: bytes) -> None:
    kind, _, rest = _text(content).partition(" ")
    readers = {"filter": parse_filter, "select": selection, "msr": parse_msr, "value": parse_value, "bits": parse_bits}
    if kind not in readers:
        raise InputError("no such kind of word")
    readers[kind](rest)


PARSERS: dict[str, Parser] = {
    "perf.data": Parser(_perf_data, _read_perf_data),
    "vcpu-snapshot": Parser(_snapshots, _read_snapshot, _seal_snapshot),
    "machine-snapshot": Parser(_machines, _read_machine, _seal_machine),
    "elf-run": Parser(lambda: [*_programs(), b"#! /bin/sh -e\n"], _run_program),
    "elf-names": Parser(_programs, _name_places),
    "replay-line": Parser(_replay_lines, _replay, _seal_line),
    "recording": Parser(lambda: [_RECORDING], _read_recording),
    "cpuid-text": Parser(lambda: [_DUMP], _read_dump),
    "xsave-image": Parser(_areas, _read_area),
    "boot-image": Parser(_kernels, _load_image),
    "words": Parser(_spoken, _hear),
}
