"""Builds the bare-metal images: 64-bit code in ELF32 with a multiboot header, as kvm-unit-tests links its own."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.guests.build import SOURCES

if TYPE_CHECKING:
    from pathlib import Path

LOAD = 0x400000
_FLAGS = (
    "-O1", "-ffreestanding", "-fno-stack-protector", "-fno-pic", "-no-pie", "-mno-red-zone", "-mno-sse", "-mno-mmx",
    "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns",
    "-Wno-array-bounds",
    "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", "-Wl,-e,start", "-Wl,-z,noexecstack",
)  # fmt: skip

needs_compiler = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("objcopy")), reason="needs gcc and binutils: install them"
)


def build(folder: Path, name: str, *sources: str, load: int = LOAD) -> Path:
    """Return the ELF32 image made from sources, loaded at `load`; NAME.elf beside it is the ELF64 one, with symbols."""
    linked, image = folder / f"{name}.elf", folder / name
    files = [str(SOURCES / source) for source in sources]
    for command in (
        ["gcc", *_FLAGS, f"-Wl,-Ttext-segment={load:#x}", "-o", str(linked), *files],
        ["objcopy", "-O", "elf32-i386", str(linked), str(image)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    return image


def symbols(image: Path) -> dict[str, int]:
    """Return the addresses of an image's symbols, local ones too, by `nm`."""
    listed = subprocess.run(["nm", f"{image}.elf"], capture_output=True, text=True, check=True, timeout=60).stdout
    return {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines() if len(line.split()) == 3}
