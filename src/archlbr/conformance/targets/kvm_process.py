"""The process that talks to a KVM device: one JSON list a line in, its answer a line out. It may hang; `kvm` may not.

Run as `python -m archlbr.conformance.targets.kvm_process DEVICE`. Guest code is that of `machine.msr_stubs`, in long
mode with the lowest 2 MiB mapped. Authority: Documentation/virt/kvm/api.rst, by the sections named at the requests;
struct layouts of arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import struct
import sys
import threading
from typing import Any, Final

from archlbr.machine import msr_stubs as stubs

API_VERSION: Final = 12
GET_API_VERSION: Final = 0xAE00  # 4.1
CREATE_VM: Final = 0xAE01  # 4.2
GET_MSR_INDEX_LIST: Final = 0xC004AE02  # 4.3
GET_MSR_FEATURE_INDEX_LIST: Final = 0xC004AE0A  # 4.3
CHECK_EXTENSION: Final = 0xAE03  # 4.4
GET_VCPU_MMAP_SIZE: Final = 0xAE04  # 4.5
CREATE_VCPU: Final = 0xAE41  # 4.7
RUN: Final = 0xAE80  # 4.10
GET_SREGS: Final = 0x8138AE83  # 4.13
SET_SREGS: Final = 0x4138AE84
SET_REGS: Final = 0x4090AE82  # 4.12
GET_MSRS: Final = 0xC008AE88  # 4.18
SET_MSRS: Final = 0x4008AE89  # 4.19
SET_USER_MEMORY_REGION: Final = 0x4020AE46  # 4.35
SET_TSS_ADDR: Final = 0xAE47  # 4.36
GET_SUPPORTED_CPUID: Final = 0xC008AE05  # 4.46
SET_CPUID2: Final = 0x4008AE90  # 4.47
GET_XSAVE2: Final = 0x9000AECF  # 4.134
SET_XSAVE: Final = 0x5000AEA5  # 4.43

CAP_XSAVE2: Final = 208
EXIT_HLT: Final = 5
_CPUID: Final = struct.Struct("<10I")
_MSR: Final = struct.Struct("<IIQ")
_SEGMENT: Final = struct.Struct("<QIH8BB5x")  # base, limit, selector, 8 bytes of attributes, unusable, padding


class Vcpu:
    """One vCPU, its run area, and the guest memory it shares with its VM."""

    def __init__(self, vm: int, number: int, size: int, memory: mmap.mmap) -> None:
        self.descriptor = fcntl.ioctl(vm, CREATE_VCPU, number)
        self.run_area = mmap.mmap(self.descriptor, size)
        self.memory = memory

    def close(self) -> None:
        """Give the vCPU back."""
        self.run_area.close()
        os.close(self.descriptor)

    def execute(self, name: str, index: int, subindex: int, value: int) -> list[int]:
        """Run a stub; return the report's words, or the exit reason alone when it is not HLT."""
        self._enter_long_mode()
        self.memory[stubs.MAILBOX : stubs.MAILBOX + 28] = stubs.question(index, subindex, value)
        registers = [0] * 18
        registers[6], registers[16], registers[17] = stubs.STACK, stubs.STUBS[name].start, 2  # RSP, RIP, RFLAGS
        fcntl.ioctl(self.descriptor, SET_REGS, struct.pack("<18Q", *registers))
        fcntl.ioctl(self.descriptor, RUN, 0)
        (reason,) = struct.unpack_from("<I", self.run_area, 8)
        if reason != EXIT_HLT:
            return [reason]
        return list(stubs.report(self.memory[stubs.MAILBOX : stubs.MAILBOX + 28]))

    def _enter_long_mode(self) -> None:
        # struct kvm_sregs: cs ds es fs gs ss tr ldt, gdt idt, cr0 cr2 cr3 cr4 cr8 efer apic_base, interrupt bitmap.
        sregs = bytearray(312)
        fcntl.ioctl(self.descriptor, GET_SREGS, sregs)
        # type, present, dpl, db, s, l, g, avl
        _SEGMENT.pack_into(sregs, 0, 0, 0xFFFFFFFF, stubs.CODE_SELECTOR, 11, 1, 0, 0, 1, 1, 1, 0, 0)
        for place in range(1, 6):
            _SEGMENT.pack_into(sregs, 24 * place, 0, 0xFFFFFFFF, stubs.DATA_SELECTOR, 3, 1, 0, 1, 1, 0, 1, 0, 0)
        struct.pack_into("<QH", sregs, 192, stubs.GDT, len(stubs.DESCRIPTORS) - 1)
        struct.pack_into("<QH", sregs, 208, stubs.IDT, 16 * stubs.VECTORS - 1)
        # CR0: PE ET NE WP PG. CR4: PAE OSFXSR, and OSXSAVE for XSAVES. EFER: LME LMA.
        struct.pack_into("<4Q", sregs, 224, 0x80010031, 0, stubs.TABLES, 0x40220)
        struct.pack_into("<Q", sregs, 264, 0x500)
        fcntl.ioctl(self.descriptor, SET_SREGS, sregs)


class Kvm:
    """A device, and at most one VM of it; each public method is a request that `kvm` sends by its name."""

    def __init__(self, path: str) -> None:
        self._device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._vm = -1
        self._vcpus: list[Vcpu] = []

    def version(self) -> int:
        """Return KVM_GET_API_VERSION."""
        return fcntl.ioctl(self._device, GET_API_VERSION)

    def supported_cpuid(self) -> list[list[int]]:
        """Return (leaf, sub-leaf, flags, eax, ebx, ecx, edx) for each entry KVM offers."""
        area = bytearray(8 + 256 * _CPUID.size)
        struct.pack_into("<I", area, 0, 256)
        fcntl.ioctl(self._device, GET_SUPPORTED_CPUID, area)
        (count,) = struct.unpack_from("<I", area)
        return [list(_CPUID.unpack_from(area, 8 + _CPUID.size * place)[:7]) for place in range(count)]

    def msr_list(self) -> list[int]:
        """Return KVM_GET_MSR_INDEX_LIST."""
        return self._indices(GET_MSR_INDEX_LIST)

    def feature_list(self) -> list[int]:
        """Return KVM_GET_MSR_FEATURE_INDEX_LIST."""
        return self._indices(GET_MSR_FEATURE_INDEX_LIST)

    def feature(self, msr: int) -> int | None:
        """Return a feature register."""
        return self._get(self._device, msr)

    def new_vm(self, cpuid: list[list[int]], vcpus: int) -> bool:
        """Make a VM and its vCPUs in place of what was there; say whether all took the CPUID."""
        self.close()
        self._vm = fcntl.ioctl(self._device, CREATE_VM, 0)
        fcntl.ioctl(self._vm, SET_TSS_ADDR, 0x7FFBD000)  # three pages that the guest has no memory at
        memory = mmap.mmap(-1, stubs.SIZE)
        memory[:] = stubs.image()
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        fcntl.ioctl(self._vm, SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, stubs.SIZE, address))
        size = fcntl.ioctl(self._device, GET_VCPU_MMAP_SIZE)
        self._vcpus = [Vcpu(self._vm, number, size, memory) for number in range(vcpus)]
        return all(self._set_cpuid(vcpu, cpuid) for vcpu in self._vcpus)

    def set_cpuid(self, cpuid: list[list[int]]) -> bool:
        """Say whether the vCPU took another CPUID."""
        return self._set_cpuid(self._vcpus[0], cpuid)

    def other_vcpu(self) -> bool:
        """Let the other vCPU be the one that is asked."""
        self._vcpus.append(self._vcpus.pop(0))
        return True

    def get_msr(self, msr: int, other_thread: int) -> int | None:
        """Return a register, or nothing when KVM_GET_MSRS does not."""
        vcpu = self._vcpus[0].descriptor
        return _in_thread(self._get, vcpu, msr) if other_thread else self._get(vcpu, msr)

    def set_msr(self, msr: int, value: int, other_thread: int) -> bool:
        """Say whether KVM_SET_MSRS took the value."""
        vcpu = self._vcpus[0].descriptor
        return _in_thread(self._set, vcpu, msr, value) if other_thread else self._set(vcpu, msr, value)

    def execute(self, name: str, index: int, subindex: int, value: int) -> list[int]:
        """Run a stub on the vCPU and return its report."""
        return self._vcpus[0].execute(name, index, subindex, value)

    def area(self) -> str:
        """Return the guest's XSAVE area in hexadecimal."""
        return self._vcpus[0].memory[stubs.AREA : stubs.AREA + stubs.AREA_SIZE].hex()

    def store(self, at: int, value: int) -> bool:
        """Store 64 bits into that area."""
        struct.pack_into("<Q", self._vcpus[0].memory, stubs.AREA + at, value)
        return True

    def xsave(self) -> str:
        """Return KVM_GET_XSAVE2's area in hexadecimal, after it was given back by KVM_SET_XSAVE."""
        size = max(fcntl.ioctl(self._vm, CHECK_EXTENSION, CAP_XSAVE2), 4096)
        area = bytearray(size)
        fcntl.ioctl(self._vcpus[0].descriptor, GET_XSAVE2, area)
        fcntl.ioctl(self._vcpus[0].descriptor, SET_XSAVE, area)
        return area.hex()

    def close(self) -> bool:
        """Give the VM back."""
        for vcpu in self._vcpus:
            vcpu.close()
        if self._vm >= 0:
            os.close(self._vm)
        self._vm, self._vcpus = -1, []
        return True

    def _indices(self, request: int) -> list[int]:
        area = bytearray(4 + 4 * 1024)
        struct.pack_into("<I", area, 0, 1024)
        fcntl.ioctl(self._device, request, area)
        (count,) = struct.unpack_from("<I", area)
        return list(struct.unpack_from(f"<{count}I", area, 4))

    @staticmethod
    def _set_cpuid(vcpu: Vcpu, rows: list[list[int]]) -> bool:
        area = bytearray(8 + len(rows) * _CPUID.size)
        struct.pack_into("<I", area, 0, len(rows))
        for place, row in enumerate(rows):
            _CPUID.pack_into(area, 8 + _CPUID.size * place, *row, 0, 0, 0)
        try:
            fcntl.ioctl(vcpu.descriptor, SET_CPUID2, area)
        except OSError:
            return False
        return True

    @staticmethod
    def _get(descriptor: int, msr: int) -> int | None:
        area = bytearray(struct.pack("<II", 1, 0) + _MSR.pack(msr, 0, 0))
        try:
            count: int = fcntl.ioctl(descriptor, GET_MSRS, area)
        except OSError:
            return None
        value: int = _MSR.unpack_from(area, 8)[2]
        return value if count == 1 else None

    @staticmethod
    def _set(descriptor: int, msr: int, value: int) -> bool:
        area = bytearray(struct.pack("<II", 1, 0) + _MSR.pack(msr, 0, value))
        try:
            count: int = fcntl.ioctl(descriptor, SET_MSRS, area)
        except OSError:
            return False
        return count == 1


def _in_thread(function: Any, *arguments: int) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments)))
    thread.start()
    thread.join()
    return found[0]


def answered(kvm: Kvm, line: str) -> str:
    """Return the answer to one line: {"answer": ...}, or {"error": TEXT}."""
    name, *arguments = json.loads(line)
    try:
        return json.dumps({"answer": getattr(kvm, name)(*arguments)})
    except OSError as refusal:
        return json.dumps({"error": refusal.strerror or str(refusal)})


def main(path: str) -> int:
    """Open the device, say so, and answer until the input ends."""
    try:
        kvm = Kvm(path)
    except OSError as refusal:
        print(json.dumps({"error": refusal.strerror}), flush=True)
        return 1
    print(json.dumps({"answer": True}), flush=True)
    for line in sys.stdin:
        print(answered(kvm, line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
