"""Ask a KVM device its API version and the CPUID it offers guests; print both as JSON. No machine and no vCPU is made.

Run by `ask` in a process of its own. Authority: Documentation/virt/kvm/api.rst 4.1 (KVM_GET_API_VERSION) and 4.46
(KVM_GET_SUPPORTED_CPUID).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import sys

KVM_GET_API_VERSION = 0xAE00  # _IO(KVMIO, 0x00)
KVM_GET_SUPPORTED_CPUID = 0xC008AE05  # _IOWR(KVMIO, 0x05, struct kvm_cpuid2)
ENTRIES = 256
HEAD = struct.Struct("<II")  # nent, padding
ENTRY = struct.Struct("<10I")  # function, index, flags, eax, ebx, ecx, edx, padding[3]


def supported_cpuid(descriptor: int) -> list[list[int]]:
    """Return a row (leaf, sub-leaf, eax, ebx, ecx, edx) for each entry KVM offers."""
    area = bytearray(HEAD.size + ENTRIES * ENTRY.size)
    HEAD.pack_into(area, 0, ENTRIES, 0)
    fcntl.ioctl(descriptor, KVM_GET_SUPPORTED_CPUID, area)
    count = HEAD.unpack_from(area)[0]
    rows = (ENTRY.unpack_from(area, HEAD.size + place * ENTRY.size) for place in range(count))
    return [[row[0], row[1], *row[3:7]] for row in rows]


def query(path: str) -> dict[str, object]:
    """Return the answer `ask` reads."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            version = fcntl.ioctl(descriptor, KVM_GET_API_VERSION)
            return {"error": "", "version": version, "leaves": supported_cpuid(descriptor)}
        finally:
            os.close(descriptor)
    except OSError as refusal:
        return {"error": errno.errorcode.get(refusal.errno or 0, str(refusal.errno)), "version": 0, "leaves": []}


if __name__ == "__main__":
    print(json.dumps(query(sys.argv[1])))
