"""Which system calls pass to the host's kernel as they are, and which are the machine's.

Guest memory lies at its own addresses, so pointers are valid in the kernel as they come. Only what concerns the address
space, threads, signals, the program itself or the processor cannot pass: those are named here, and `machine.calls`
gives each its meaning. Numbers: arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import errno
from typing import Final

OPEN: Final = 2
MMAP: Final = 9
MPROTECT: Final = 10
MUNMAP: Final = 11
BRK: Final = 12
RT_SIGACTION: Final = 13
RT_SIGPROCMASK: Final = 14
RT_SIGRETURN: Final = 15
MREMAP: Final = 25
SHMAT: Final = 30
SHMCTL: Final = 31
GETPID: Final = 39
CLONE: Final = 56
FORK: Final = 57
VFORK: Final = 58
EXECVE: Final = 59
EXIT: Final = 60
SHMDT: Final = 67
READLINK: Final = 89
SIGALTSTACK: Final = 131
PRCTL: Final = 157
ARCH_PRCTL: Final = 158
SETRLIMIT: Final = 160
GETTID: Final = 186
FUTEX: Final = 202
SET_TID_ADDRESS: Final = 218
EXIT_GROUP: Final = 231
TGKILL: Final = 234
OPENAT: Final = 257
READLINKAT: Final = 267
PRLIMIT64: Final = 302
PROCESS_VM_READV: Final = 310
SECCOMP: Final = 317
EXECVEAT: Final = 322
PKEY_MPROTECT: Final = 329
RSEQ: Final = 334
CLONE3: Final = 435

# Answered without asking: what cannot work from inside an emulating process, and what C libraries do without.
REFUSED: Final[dict[int, int]] = {
    101: errno.EPERM,  # ptrace: the tracer would see the emulator
    103: errno.EPERM,  # syslog
    154: errno.ENOSYS,  # modify_ldt
    216: errno.ENOSYS,  # remap_file_pages
    SECCOMP: errno.EINVAL,  # a filter would bind the emulator too
    323: errno.ENOSYS,  # userfaultfd
    PKEY_MPROTECT: errno.ENOSYS,
    330: errno.ENOSPC,  # pkey_alloc: this processor offers no keys
    RSEQ: errno.ENOSYS,  # restartable sequences would have to abort inside the engine
    CLONE3: errno.ENOSYS,  # the C library falls back to clone
    447: errno.ENOSYS,  # memfd_secret
    453: errno.ENOSYS,  # map_shadow_stack
}

CLONE_VM: Final = 0x100
CLONE_VFORK: Final = 0x4000
CLONE_PARENT_SETTID: Final = 0x100000
CLONE_CHILD_CLEARTID: Final = 0x200000
CLONE_CHILD_SETTID: Final = 0x1000000
CLONE_THREAD: Final = 0x10000
CLONE_SETTLS: Final = 0x80000
# Namespaces and the rest: the flags of clone(2) that fork and threads do not need.
CLONE_UNSUPPORTED: Final = 0x7E028000 | 0x1000  # NEWNS..NEWNET, PARENT, PIDFD

ARCH_SET_GS: Final = 0x1001
ARCH_SET_FS: Final = 0x1002
ARCH_GET_FS: Final = 0x1003
ARCH_GET_GS: Final = 0x1004

PR_SET_NAME: Final = 15
PR_SET_SECCOMP: Final = 22
PR_SET_MM: Final = 35

# Limits that would bind the emulator's own memory; the guest is told they were set.
RLIMIT_DATA: Final = 2
RLIMIT_STACK: Final = 3
RLIMIT_AS: Final = 9
EMULATOR_LIMITS: Final = (RLIMIT_DATA, RLIMIT_STACK, RLIMIT_AS)

FUTEX_WAKE: Final = 1
SIGCHLD: Final = 17
