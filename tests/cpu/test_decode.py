"""Decoding a block, on instructions written down by hand from the manual's opcode maps (SDM vol. 2, appendix A)."""

from __future__ import annotations

import pytest

from archlbr.arch.branches import BranchKind as Kind
from archlbr.cpu import words as at
from archlbr.cpu.decode import count_to, decode_block, direct_target, opcode_at, repeats
from tests.cpu.driver import Code, U

JCC = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")

COND = {
    **{f"j{name} short": f"{0x70 + index:02x} 10" for index, name in enumerate(JCC)},
    **{f"j{name} near": f"0f {0x80 + index:02x} 10 00 00 00" for index, name in enumerate(JCC)},
    "loopne": "e0 f0",
    "loope": "e1 f0",
    "loop": "e2 f0",
    "jrcxz": "e3 f0",
    "loop counting in ecx": "67 e2 f0",
    "jecxz": "67 e3 f0",
    "jne hinted not taken": "2e 75 10",
    "je hinted taken": "3e 74 10",
    "jne near hinted": "3e 0f 85 10 00 00 00",
    "bnd jne": "f2 75 10",
    "bnd jne near": "f2 0f 85 10 00 00 00",
    "jne with a REX": "48 75 10",
}
REL_JMP = {
    "jmp short": "eb 10",
    "jmp near": "e9 10 00 00 00",
    "bnd jmp short": "f2 eb 10",
    "bnd jmp near": "f2 e9 10 00 00 00",
    "jmp near with a REX": "48 e9 10 00 00 00",
    "jmp to itself": "eb fe",
    "jmp to the next": "eb 00",
}
IND_JMP = {
    "jmp rax": "ff e0",
    "jmp r8": "41 ff e0",
    "jmp [rax]": "ff 20",
    "jmp [r9]": "41 ff 21",
    "jmp [rip+16]": "ff 25 10 00 00 00",
    "jmp [rax*8+16]": "ff 24 c5 10 00 00 00",
    "notrack jmp rax": "3e ff e0",
    "notrack jmp [r8*8]": "3e 42 ff 24 c5 00 00 00 00",
    "bnd jmp [rip+16]": "f2 ff 25 10 00 00 00",
    "jmp fs:[16]": "64 ff 24 25 10 00 00 00",
    "jmp gs:[rax]": "65 ff 20",
    "jmp [eax]": "67 ff 20",
    "rex.w jmp rax": "48 ff e0",
}
REL_CALL = {
    "call": "e8 10 00 00 00",
    "call back": "e8 f0 ff ff ff",
    "call one byte on": "e8 00 00 00 01",
    "bnd call": "f2 e8 10 00 00 00",
    "addr32 call": "67 e8 10 00 00 00",
    "call of a thread-local's address": "66 66 48 e8 10 00 00 00",
}
IND_CALL = {
    "call rax": "ff d0",
    "call r12": "41 ff d4",
    "call [rax]": "ff 10",
    "call [rip+16]": "ff 15 10 00 00 00",
    "call [rbx*8]": "ff 14 dd 00 00 00 00",
    "notrack call rax": "3e ff d0",
    "bnd call rax": "f2 ff d0",
    "call fs:[16]": "64 ff 14 25 10 00 00 00",
    "addr32 call [eax]": "67 ff 10",
    "rex.w call rax": "48 ff d0",
}
RET = {"ret": "c3", "ret 16": "c2 10 00", "rep ret": "f3 c3", "bnd ret": "f2 c3", "rex.w ret": "48 c3"}
OTHER = {
    "retf": "cb",
    "retf 16": "ca 10 00",
    "rex.w retf": "48 cb",
    "iret": "cf",
    "iretq": "48 cf",
    "jmp far [rax]": "ff 28",
    "rex.w jmp far [rax]": "48 ff 28",
    "call far [rax]": "ff 18",
    "rex.w call far [r8]": "49 ff 18",
    "syscall": "0f 05",
    "sysret": "0f 07",
    "rex.w sysret": "48 0f 07",
    "sysenter": "0f 34",
    "sysexit": "0f 35",
    "int3": "cc",
    "int 80h": "cd 80",
    "int1": "f1",
    "ud2": "0f 0b",
    "rsm": "0f aa",
    "xabort": "c6 f8 01",
}
NONE = {
    "call of the next": "e8 00 00 00 00",
    "bnd call of the next": "f2 e8 00 00 00 00",
    "call of the next as thread-local code has it": "66 66 48 e8 00 00 00 00",
    "nop": "90",
    "pause": "f3 90",
    "endbr64": "f3 0f 1e fa",
    "leave": "c9",
    "push [rax], of the same opcode byte as jmp": "ff 30",
    "inc eax, of the same opcode byte as jmp": "ff c0",
    "mov rax, -1": "48 c7 c0 ff ff ff ff",
    "setne al": "0f 95 c0",
    "cmovne eax, ecx": "0f 45 c1",
    "xbegin": "c7 f8 10 00 00 00",
    "rep movsb": "f3 a4",
    "cpuid": "0f a2",
    "hlt, which an interrupt may end but no branch does": "f4",
}

TABLE = [
    pytest.param(code, kind, id=f"{kind.name} {name}")
    for kind, rows in (
        (Kind.COND, COND),
        (Kind.REL_JMP, REL_JMP),
        (Kind.IND_JMP, IND_JMP),
        (Kind.REL_CALL, REL_CALL),
        (Kind.IND_CALL, IND_CALL),
        (Kind.RET, RET),
        (Kind.OTHER, OTHER),
        (Kind.NONE, NONE),
    )
    for name, code in rows.items()
]


def decoded(code: Code, size: int, offset: int = 0) -> tuple[int, int, int, int]:
    decode_block(code.words, U(at.TABLE), U(code.address + offset), U(size))
    return code.entry(at.TABLE)


@pytest.mark.parametrize(("text", "kind"), TABLE)
def test_the_kind_of_an_instruction(text: str, kind: Kind) -> None:
    raw = bytes.fromhex(text)
    code = Code(b"\x31\xc0" + raw)  # xor eax, eax first
    key, end, last, meta = decoded(code, 2 + len(raw))
    assert (key, end, last) == (0, 2 + len(raw), 2)
    assert Kind(meta & 0xFF) == kind
    assert meta >> at.META_COUNT_SHIFT & at.META_COUNT_MASK == 2
    assert meta & at.META_UNDECODED == 0


@pytest.mark.parametrize(
    ("size", "text", "kind"),
    [
        (16, "e8 00 00", Kind.NONE),
        (16, "e8 01 00", Kind.REL_CALL),
        (16, "e8 00 01", Kind.REL_CALL),
        (16, "66 e8 00 00 00 00", Kind.NONE),
        (16, "66 e8 00 00 01 00", Kind.REL_CALL),
        (32, "e8 00 00 00 00", Kind.NONE),
        (32, "e8 00 00 01 00", Kind.REL_CALL),
        (32, "66 e8 00 00", Kind.NONE),
        (32, "66 e8 00 01", Kind.REL_CALL),
    ],
)
def test_a_call_of_the_next_instruction_in_older_code(size: int, text: str, kind: Kind) -> None:
    raw = bytes.fromhex(text)
    code = Code(raw)  # NOPs follow, which are no part of a displacement
    code.decode_as(size)
    assert Kind(decoded(code, len(raw))[3] & 0xFF) == kind


@pytest.mark.parametrize(("text", "kind"), [*TABLE, pytest.param("26 36 f0 66 67 90", Kind.NONE, id="many prefixes")])
def test_the_opcode_stands_behind_the_prefixes(text: str, kind: Kind) -> None:
    prefixes = {"2e", "3e", "26", "36", "64", "65", "66", "67", "f0", "f2", "f3", "40", "41", "42", "48", "49"}
    words = text.split()
    place = next(index for index, word in enumerate(words) if word not in prefixes)
    code = Code(bytes.fromhex(text))
    assert int(opcode_at(U(code.address))) == code.address + place


@pytest.mark.parametrize(
    ("text", "displacement"),
    [
        ("eb 10", 0x10),
        ("eb 7f", 127),
        ("eb 80", -128),
        ("eb fe", -2),
        ("eb 00", 0),
        ("e9 78 56 34 12", 0x12345678),
        ("e9 ff ff ff 7f", (1 << 31) - 1),
        ("e9 00 00 00 80", -(1 << 31)),
        ("e9 fb ff ff ff", -5),
        ("e8 f0 ff ff ff", -16),
        ("e8 10 00 00 00", 16),
        ("66 66 48 e8 f0 ff ff ff", -16),
        ("f2 e9 10 00 00 00", 16),
        ("f2 eb f0", -16),
        ("0f 84 00 01 00 00", 256),
        ("0f 8f 00 ff ff ff", -256),
        ("2e 0f 85 00 ff ff ff", -256),
        ("75 80", -128),
        ("3e 74 7f", 127),
        ("e0 f0", -16),
        ("e2 10", 16),
        ("67 e2 f0", -16),
        ("67 e3 10", 16),
        ("48 75 f0", -16),
    ],
)
def test_where_a_direct_branch_leads(text: str, displacement: int) -> None:
    raw = bytes.fromhex(text)
    code = Code(raw)
    end = code.address + len(raw)
    assert int(direct_target(U(code.address), U(end))) == end + displacement


STRINGS = {
    "insb": "6c", "insd": "6d", "outsb": "6e", "outsd": "6f", "movsb": "a4", "movsd": "a5", "cmpsb": "a6",
    "cmpsd": "a7", "stosb": "aa", "stosd": "ab", "lodsb": "ac", "lodsd": "ad", "scasb": "ae", "scasd": "af",
}  # fmt: skip
REPEATED = {
    **{f"rep {name}": f"f3 {code}" for name, code in STRINGS.items()},
    **{f"repne {name}": f"f2 {code}" for name, code in STRINGS.items()},
    "rep movsq": "f3 48 a5",
    "rep movsw": "f3 66 a5",
    "rep movsw, prefixes the other way round": "66 f3 a5",
    "repne scasw": "66 f2 af",
    "rep movsb by ecx": "67 f3 a4",
    "rep movsb by ecx, the other way round": "f3 67 a4",
    "rep movs from fs": "64 f3 a4",
    "rep movs from gs": "f3 65 48 a5",
    "rep lodsb with a cs prefix, which means nothing": "f3 2e ac",
    "rep lodsb with a ds prefix": "3e f3 ac",
    "rep lodsb with an es prefix": "26 f3 ac",
    "rep lodsb with an ss prefix": "36 f3 ac",
    "rep stosq with all of REX": "f3 4f ab",
    "rep movsb behind a REX that means nothing": "48 f3 a4",
}
NOT_REPEATED = {
    **STRINGS,
    "movsq": "48 a5",
    "movsw": "66 a5",
    "pause": "f3 90",
    "rep ret": "f3 c3",
    "popcnt": "f3 0f b8 c0",
    "popcnt r8": "f3 4d 0f b8 c0",
    "tzcnt": "f3 0f bc c0",
    "movsd xmm0, [rax]": "f2 0f 10 00",
    "movdqu": "f3 0f 6f 00",
    "shld, whose second byte is that of movsb": "0f a4 c1 03",
    "rep test al, which does not repeat": "f3 a8 01",
    "rep test eax": "f3 a9 01 00 00 00",
    "bnd jmp": "f2 eb 10",
    "fs mov": "64 48 8b 04 25 00 00 00 00",
}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *(pytest.param(code, 1, id=name) for name, code in REPEATED.items()),
        *(pytest.param(code, 0, id=name) for name, code in NOT_REPEATED.items()),
    ],
)
def test_what_repeats(text: str, answer: int) -> None:
    raw = bytes.fromhex(text)
    code = Code(raw)
    assert int(repeats(U(code.address))) == answer
    _, _, last, meta = decoded(code, len(raw))
    assert last == 0
    assert bool(meta & at.META_REP) == bool(answer)


# xor eax, eax; mov rax, [fs:0]; nop word [..] of 9 bytes; rep stosb; jne -20
MIXED = bytes.fromhex("31c0 64488b042500000000 66900f1f00 f3aa 75ec")
STARTS = [0, 2, 11, 13, 16, 18]


def test_a_block_of_many_instructions() -> None:
    code = Code(MIXED)
    key, end, last, meta = decoded(code, len(MIXED))
    assert (key, end, last, meta & 0xFF) == (0, 20, 18, Kind.COND)
    assert meta >> at.META_COUNT_SHIFT & at.META_COUNT_MASK == len(STARTS)
    assert meta & (at.META_REP | at.META_UNDECODED) == 0


@pytest.mark.parametrize("end", range(21))
def test_counting_the_instructions_before_an_address(end: int) -> None:
    code = Code(MIXED)
    expected = sum(start < end for start in STARTS)
    assert int(count_to(code.words, U(code.address), U(code.address + end))) == expected


@pytest.mark.parametrize(
    ("text", "count", "last"),
    [
        ("90 90 06", 2, 1),  # PUSH ES is none in 64-bit mode
        ("06", 0, 0),
        ("31 c0 e8 10 00", 1, 0),  # cut in the middle of a CALL
        ("90 ea 00", 1, 0),  # JMP far immediate is none in 64-bit mode
    ],
)
def test_bytes_that_are_no_instruction(text: str, count: int, last: int) -> None:
    raw = bytes.fromhex(text)
    code = Code(raw)
    _, end, where, meta = decoded(code, len(raw))
    assert (end, where, meta & 0xFF) == (len(raw), last, Kind.NONE)
    assert meta >> at.META_COUNT_SHIFT & at.META_COUNT_MASK == count
    assert meta & at.META_UNDECODED


def test_the_hash_of_the_last_instruction_is_kept() -> None:
    code = Code(MIXED)
    *_, meta = decoded(code, len(MIXED))
    # 2^64 divided by the golden ratio, and 24 bits of the product from bit 40.
    assert meta >> at.META_HASH_SHIFT == (code.address + 18) * 11400714819323198485 % 2**64 // 2**40
