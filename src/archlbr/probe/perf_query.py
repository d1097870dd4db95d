"""Open one branch-stack event on this process, print as JSON whether the kernel let us, and close it.

Run by `ask` in a process of its own. Authority: perf_event_open(2); include/uapi/linux/perf_event.h,
PERF_ATTR_SIZE_VER5.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct

SYSCALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
ATTR_SIZE = 112
SAMPLE_IP_AND_BRANCHES = 1 << 0 | 1 << 11
BRANCH_USER_ANY = 1 << 0 | 1 << 3
DISABLED, EXCLUDE_KERNEL, EXCLUDE_HV = 1 << 0, 1 << 5, 1 << 6
CLOEXEC = 8


def attribute() -> bytes:
    """Return the perf_event_attr of cycles:u, a sample every 100003, with its branch stack."""
    flags = DISABLED | EXCLUDE_KERNEL | EXCLUDE_HV
    head = struct.pack("<IIQQQQQ", 0, ATTR_SIZE, 0, 100003, SAMPLE_IP_AND_BRANCHES, 0, flags)
    return (head + struct.pack("<IIQQQ", 0, 0, 0, 0, BRANCH_USER_ANY)).ljust(ATTR_SIZE, b"\0")


def open_event() -> str:
    """Return an empty string when the event opened, else the errno's name."""
    number = SYSCALL.get(platform.machine())
    if number is None:
        return "ENOSYS"
    libc = ctypes.CDLL(None, use_errno=True)
    attr = ctypes.create_string_buffer(attribute(), ATTR_SIZE)
    descriptor = libc.syscall(number, attr, 0, -1, -1, ctypes.c_ulong(CLOEXEC))
    if descriptor < 0:
        return errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))
    os.close(descriptor)
    return ""


if __name__ == "__main__":
    print(json.dumps({"error": open_event(), "version": 0, "leaves": []}))
