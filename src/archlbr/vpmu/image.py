"""The bytes of a vCPU's snapshot: one versioned, checksummed format, field by field.

`snapshot` fills an Image from a vCPU and writes one back. Field names are those of QEMU's `cpu/arch_lbr` and its other
sections of a CPU where QEMU has the field; docs/formats.md describes each. Little-endian throughout:

    magic "ALBRVCPU" (8 bytes), version u32, size u32 of the whole, WORDS as u64 each, then the counters (u64 each), the
    records (from, to, info: u64 each), and SHA-256 of everything before it (32 bytes).

Authority: ours (decision 024); QEMU target/i386/machine.c for the names.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from archlbr.errors import InputError
from archlbr.lbr.state import Entry

MAGIC = b"ALBRVCPU"
VERSION = 1
_HEAD = struct.Struct("<8sII")
_DIGEST = hashlib.sha256().digest_size
_MOST_COUNTERS, _MOST_RECORDS = 64, 64


class Image(NamedTuple):
    """A vCPU's LBR and PMU state, as the guest sees it; 64-bit words but for the four tuples at the end.

    What the source was: flavour (0 to 3FH, 40H for no LBRs), cpuid_1c_eax, _ebx, _ecx, xss_legal, pmu_version. The
    LBRs: msr_lbr_ctl, msr_lbr_depth, ler_from, ler_to, ler_info, lbr_select, lbr_tos, asked. What goes with them: xss,
    xcr0, msr_debugctl, perf_capabilities, smm, smram_lbr_ctl. The PMU: msr_fixed_ctr_ctrl, msr_global_ctrl,
    msr_global_status (LBR_FRZ is its bit 58). L2: nested_*. Then msr_gp_counters, msr_gp_evtsel, msr_fixed_counters and
    lbr_records, newest first.
    """

    flavour: int
    cpuid_1c_eax: int
    cpuid_1c_ebx: int
    cpuid_1c_ecx: int
    xss_legal: int
    pmu_version: int
    msr_lbr_ctl: int
    msr_lbr_depth: int
    ler_from: int
    ler_to: int
    ler_info: int
    lbr_select: int
    lbr_tos: int
    asked: int
    xss: int
    xcr0: int
    msr_debugctl: int
    perf_capabilities: int
    smm: int
    smram_lbr_ctl: int
    msr_fixed_ctr_ctrl: int
    msr_global_ctrl: int
    msr_global_status: int
    nested_offered: int
    nested_active: int
    nested_entry_controls: int
    nested_exit_controls: int
    nested_passthrough: int
    nested_l1_ctl: int
    nested_l1_debugctl: int
    nested_debugctl12: int
    msr_gp_counters: tuple[int, ...]
    msr_gp_evtsel: tuple[int, ...]
    msr_fixed_counters: tuple[int, ...]
    lbr_records: tuple[Entry, ...]


WORDS: tuple[str, ...] = Image._fields[:-4]


def pack(image: Image) -> bytes:
    """Return the image's bytes; the same image gives the same bytes."""
    gp, selects, fixed, records = image[-4:]
    words = (*image[:-4], len(gp), len(fixed), len(records), *gp, *selects, *fixed)
    flat = (*words, *(word for record in records for word in record))
    body = struct.pack(f"<{len(flat)}Q", *flat)
    size = _HEAD.size + len(body) + _DIGEST
    content = _HEAD.pack(MAGIC, VERSION, size) + body
    return content + hashlib.sha256(content).digest()


def unpack(data: bytes) -> Image:
    """Return the image; InputError with one line for anything but a whole, undamaged snapshot of this version."""
    if len(data) < _HEAD.size + _DIGEST or not data.startswith(MAGIC):
        raise InputError("this is no vCPU snapshot: it does not begin with ALBRVCPU; take a new one")
    _, version, size = _HEAD.unpack_from(data)
    if version != VERSION:
        raise InputError(f"vCPU snapshot of version {version}: this archlbr reads version {VERSION}; take a new one")
    if size != len(data):
        raise InputError(f"vCPU snapshot of {size} bytes has {len(data)}: it was cut or added to; copy it again")
    content, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise InputError("vCPU snapshot is damaged: its SHA-256 differs; copy it again or take a new one")
    words = struct.unpack_from(f"<{(len(content) - _HEAD.size) // 8}Q", content, _HEAD.size)
    fixed_words = len(WORDS)
    counts, rest = words[fixed_words : fixed_words + 3], words[fixed_words + 3 :]
    if len(counts) < 3 or size != _size(*counts):
        raise InputError("vCPU snapshot contradicts itself: its counts do not add up to its size; take a new one")
    gp, fixed, records = counts
    if max(gp, fixed) > _MOST_COUNTERS or records > _MOST_RECORDS:
        raise InputError("vCPU snapshot has more counters or records than any processor; take a new one")
    selects_at, fixed_at, records_at = gp, 2 * gp, 2 * gp + fixed
    entries = tuple(Entry(*rest[at : at + 3]) for at in range(records_at, len(rest), 3))
    lists = (rest[:gp], rest[selects_at:fixed_at], rest[fixed_at:records_at], entries)
    return Image._make((*words[:fixed_words], *lists))


def _size(gp: int, fixed: int, records: int) -> int:
    return _HEAD.size + 8 * (len(WORDS) + 3 + 2 * gp + fixed + 3 * records) + _DIGEST
