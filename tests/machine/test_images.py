"""Bare-metal images: a multiboot image in the shape of kvm-unit-tests, an ELF64 image, and files that are neither."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from unicorn import x86_const as x86

from archlbr.cpu.unicorn import registers
from archlbr.errors import InputError
from archlbr.machine import entry, images, observing
from archlbr.machine.board import Board
from archlbr.machine.devices.fwcfg import FirmwareConfiguration
from archlbr.machine.images import Start
from archlbr.machine.models import MODELS, Model, without
from tests.guests.images import build, needs_compiler
from tests.machine.elf_image import MIB, elf

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 10**8
COUNTS = slice(observing.RETIRED_BY_RING, observing.NOTHING)


def _drop(_byte: int) -> None:
    return


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("images"), "flat", "flat.S", "flat.c")


def boot(image: bytes, name: str, initrd: bytes = b"", append: str = "", model: Model | None = None) -> tuple[int, str]:
    console = bytearray()
    board = Board(model or MODELS["sapphire-rapids"], 64 * MIB, console.append)
    board.start_image(image, name, initrd, append)
    status = board.run(LIMIT)
    assert status is not None, console
    assert board.cause == ""
    return status, console.decode()


@needs_compiler
@pytest.mark.parametrize("suffix", ["", ".elf"], ids=["elf32", "elf64"])
def test_a_multiboot_image_runs_as_it_is(flat: Path, suffix: str) -> None:
    image = (flat.parent / (flat.name + suffix)).read_bytes()
    assert image[4] == (2 if suffix else 1)
    status, console = boot(image, "flat", b"NR_CPUS=1", "one two")
    lines = console.splitlines()
    assert lines[:6] == [
        "loader=2badb002", "flat one two", f"upper={63 << 10:x}", "module=NR_CPUS=1", "processors=1", "memory=4000000",
    ]  # fmt: skip
    assert lines[6] == "PASS: APIC"
    assert [line for line in lines if line.startswith("FAIL")] == []
    assert len([line for line in lines if line.startswith("PASS")]) == 27
    assert lines[-1] == "tests=1b"
    assert status == 1  # code 0, as isa-debug-exit has it


@needs_compiler
def test_the_exit_status_is_the_debug_ports(flat: Path) -> None:
    assert boot(flat.read_bytes(), "flat", append="fail")[0] == 21 << 1 | 1


@needs_compiler
def test_a_processor_without_architectural_lbr_is_skipped_by_the_image(flat: Path) -> None:
    for model in (MODELS["skylake-server"], without(MODELS["sapphire-rapids"], "arch-lbr")):
        status, console = boot(flat.read_bytes(), "flat", model=model)
        assert (status, console.splitlines()[-2]) == (1, "SKIP: no architectural LBR")


@pytest.mark.parametrize(("bits", "code"), [(32, 0xCF9B00), (64, 0xAF9B00)])
def test_the_segments_of_an_image_are_flat_from_the_first_instruction(bits: int, code: int) -> None:
    board = Board(MODELS["sapphire-rapids"], 4 * MIB, _drop)
    entry.enter(board.uc, board.engine.env, board.memory, Start(0x100000, bits=bits))
    segments = registers.read(board.uc, board.engine.env).descriptors[:6]  # ES CS SS DS FS GS
    assert segments[1] == (0x10, 0, 0xFFFFFFFF, code)
    assert {segments[at] for at in (0, 2, 3, 4, 5)} == {(0x18, 0, 0xFFFFFFFF, 0xCF9300)}
    board.memory[0x100000:0x100006] = b"\xe8\0\0\0\0\xf4"  # CALL the next instruction, HLT for ever
    board.uc.reg_write(x86.UC_X86_REG_RSP, 0x212340)
    assert (board.run(100), board.cause) == (0, "")
    width = bits // 8
    assert board.memory[0x212340 - width : 0x212340] == (0x100005).to_bytes(width, "little")


@needs_compiler
def test_an_elf64_image_starts_in_long_mode(tmp_path: Path) -> None:
    build(tmp_path, "plain", "plain.S")
    image = (tmp_path / "plain.elf").read_bytes()
    assert boot(image, "plain") == (19, "")
    with pytest.raises(InputError, match="takes no initrd and no command line"):
        boot(image, "plain", append="x")


@needs_compiler
def test_run_shows_the_console_and_passes_the_status_on(flat: Path) -> None:
    command = [sys.executable, "-m", "archlbr", "run", "--kernel", str(flat), "--append", "fail"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (43, "")
    assert done.stdout.splitlines()[1] == f"{flat} fail"


@needs_compiler
def test_two_runs_are_the_same_byte_for_byte(flat: Path) -> None:
    ends = []
    for _ in range(2):
        board = Board(MODELS["sapphire-rapids"], 64 * MIB, lambda _byte: None)
        board.start_image(flat.read_bytes(), "flat", b"", "")
        board.run(LIMIT)
        ends.append((board.now(), bytes(board.memory), board.words[COUNTS].tobytes()))
    assert ends[0] == ends[1]


def header(flags: int) -> bytes:
    return struct.pack("<III", images.HEADER_MAGIC, flags, -(images.HEADER_MAGIC + flags) & 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "is no kernel"),
        (b"\x7fELF", "is a damaged ELF file"),
        (elf()[:70], "is a damaged ELF file"),
        (elf()[:130], "is cut off: 130 of 136 bytes"),
        (elf(machine=183), "is an image for AArch64"),
        (elf(machine=40), "is an image for 32-bit Arm"),
        (elf(kind=3), "is an ELF file of type ET_DYN"),
        (elf(machine=3, bits=1), "is a 32-bit ELF file without a multiboot header"),
        (elf(taken=1 << 60), "needs 0x1000000000100000 bytes of memory"),
        (elf(place=1 << 62), "bytes of memory; give more with --memory"),
        (elf(size=1, taken=0), "is cut off"),
        (elf(size=0, taken=0, place=0), "has nothing to load"),
        (elf() + header(4), "asks for multiboot flags 0x4"),
        (elf() + header(1 << 16), "asks for multiboot flags 0x10000"),
    ],
)
def test_what_is_no_image_is_refused(image: bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        images.load(memoryview(bytearray(2 * MIB)), image, "some", b"", "")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("some ")
    assert "\n" not in str(caught.value)


def test_modules_and_command_lines_that_do_not_fit_are_refused() -> None:
    image = elf() + bytes(12) + header(0)
    with pytest.raises(InputError, match="2 MiB is too little for this image and initrd"):
        images.load(memoryview(bytearray(2 * MIB)), image, "some", bytes(MIB), "")
    with pytest.raises(InputError, match="the command line has 30005 bytes"):
        images.load(memoryview(bytearray(2 * MIB)), image, "some", b"", "x" * 30000)


def test_the_firmwares_entries_are_read_byte_by_byte() -> None:
    firmware = FirmwareConfiguration(256 * MIB)
    answers = {}
    for number, size in ((0, 4), (5, 2), (0xF, 2), (3, 8), (0x8003, 4)):
        firmware.write(0x510, number & 0xFF)
        firmware.write(0x511, number >> 8)
        answers[number] = bytes(firmware.read(0x511) for _ in range(size))
    assert answers == {
        0: b"QEMU",
        5: b"\x01\0",
        0xF: b"\x01\0",
        3: b"\0\0\0\x10\0\0\0\0",
        0x8003: bytes(4),
    }
