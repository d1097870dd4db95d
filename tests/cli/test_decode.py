"""`decode` of a register: exact text, worked out by hand from reference architecture.md 1.2, 1.3 and 2."""

from __future__ import annotations

import json

import pytest

from tests.cli.shell import archlbr

CTL_TEXT = """\
IA32_LBR_CTL (14CEH) = 0x00000000007f0005
      0  LBREn          1  record
      1  OS             0  record when CPL = 0
      2  USR            1  record when CPL > 0
      3  CALL_STACK     0  call-stack mode
     16  JCC            1  taken conditional branches
     17  NEAR_REL_JMP   1  direct jumps
     18  NEAR_IND_JMP   1  indirect jumps
     19  NEAR_REL_CALL  1  direct calls
     20  NEAR_IND_CALL  1  indirect calls
     21  NEAR_RET       1  returns
     22  OTHER_BRANCH   1  far transfers, system calls, interrupts, exceptions, aborts
"""


@pytest.mark.parametrize(
    "name",
    [
        "IA32_LBR_CTL",
        "LBR_CTL",
        "lbr_ctl",
        "MSR_ARCH_LBR_CTL",
        "0x14ce",
        "0x14CE",
        "14ceH",
        "14CEh",
        "14ce",
        "0x000014ce",
    ],
)
def test_each_way_to_name_a_register_is_understood(name: str) -> None:
    assert archlbr("decode", name, "7f0005") == (0, CTL_TEXT, "")


@pytest.mark.parametrize("value", ["7f0005", "7F0005", "0x7f0005", "0x00000000007f0005", "7f0005H"])
def test_a_value_is_hexadecimal_with_or_without_a_mark(value: str) -> None:
    assert archlbr("decode", "14ce", value).out == CTL_TEXT


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("MSR_ARCH_LBR_FROM_3", "IA32_LBR_3_FROM_IP (1503H)"),
        ("IA32_LBR_31_TO_IP", "IA32_LBR_31_TO_IP (161FH)"),
        ("MSR_ARCH_LBR_INFO_0", "IA32_LBR_0_INFO (1200H)"),
        ("MSR_LBR_INFO_0", "MSR_LBR_INFO_0 (DC0H)"),
        ("1dd", "IA32_LER_FROM_IP (1DDH)"),
        ("MSR_IA32_LASTINTTOIP", "IA32_LER_TO_IP (1DEH)"),
        ("MSR_IA32_DEBUGCTLMSR", "IA32_DEBUGCTL (1D9H)"),
        ("debugctl", "IA32_DEBUGCTL (1D9H)"),
        ("MSR_IA32_PERF_CAPABILITIES", "IA32_PERF_CAPABILITIES (345H)"),
        ("345", "IA32_PERF_CAPABILITIES (345H)"),
        ("lbr_select", "MSR_LBR_SELECT (1C8H)"),
        ("MSR_LBR_TOS", "MSR_LASTBRANCH_TOS (1C9H)"),
        ("xss", "IA32_XSS (DA0H)"),
        ("38e", "IA32_PERF_GLOBAL_STATUS (38EH)"),
    ],
)
def test_names_of_the_manual_and_of_linux_find_the_same_register(name: str, heading: str) -> None:
    assert archlbr("decode", name, "0").out.partition(" = ")[0] == heading


@pytest.mark.parametrize(
    ("msr", "value", "notes"),
    [
        ("14ce", "7f0006", ["off: LBREn is 0"]),
        ("14ce", "5", ["nothing is recorded: CTL[22:16] names the branches to include (architecture.md 2.2)"]),
        ("14ce", "7f0001", ["nothing is recorded: neither OS nor USR is set (UNCONFIRMED, architecture.md 2.2)"]),
        ("14ce", "38000d", []),
        (
            "14ce",
            "7f000d",
            ["call-stack mode wants NEAR_REL_CALL, NEAR_IND_CALL and NEAR_RET alone (architecture.md 3.3)"],
        ),
        ("14ce", "80000000007f8015", ["reserved bits are set: 4, 15, 63"]),
        ("14cf", "20", ["32 entries, where CPUID.1CH:EAX[3] is set"]),
        ("14cf", "0", ["no processor enumerates this depth: WRMSR faults (architecture.md 2.3)"]),
        ("14cf", "21", ["no processor enumerates this depth: WRMSR faults (architecture.md 2.3)"]),
        ("1500", "0", ["no entry: readers stop here (architecture.md 2.4)"]),
        ("1500", "7fffffffffff", []),
        ("1500", "ffff800000000000", []),
        ("1600", "800000000000", ["not canonical with 48-bit addresses (architecture.md 2.4)"]),
        ("1200", "8000000000000000", ["CYC_CNT is not to be used: CYC_CNT_VALID is 0 (architecture.md 2.5)"]),
        ("1200", "1080000080000000", ["undefined bits are set: 31, 55"]),
        ("1c8", "0", ["nothing is suppressed: each branch is recorded (architecture.md 5)"]),
        ("1d9", "10000", ["reserved bits are set: 16"]),
    ],
)
def test_a_value_is_judged_as_a_whole(msr: str, value: str, notes: list[str]) -> None:
    lines = archlbr("decode", msr, value).out.splitlines()
    assert [line.removeprefix("  note: ") for line in lines if line.startswith("  note: ")] == notes


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (0, "COND"),
        (1, "IND_JMP"),
        (2, "REL_JMP"),
        (3, "IND_CALL"),
        (4, "REL_CALL"),
        (5, "RET"),
        (6, "reserved"),
        (7, "reserved"),
        (8, "OTHER"),
        (15, "OTHER"),
    ],
)
def test_each_branch_type_has_its_word(code: int, word: str) -> None:
    out = archlbr("decode", "1203", f"{code << 56:x}").out
    assert f"  59:56  BR_TYPE        {code:#x}  branch type: {word}\n" in out


@pytest.mark.parametrize(
    ("bits", "said"), [("59:56", "5"), ("63:63", "1"), ("15:0", "12"), ("63:0", "9500000300000012"), ("33:32", "3")]
)
def test_a_bit_field_is_printed_as_rdmsr_prints_it(bits: str, said: str) -> None:
    assert archlbr("decode", "1200", "9500000300000012", "-f", bits) == (0, f"{said}\n", "")


def test_the_document_of_a_register() -> None:
    found = json.loads(archlbr("decode", "LBR_DEPTH", "28", "--format", "json").out)
    assert found == {
        "version": 1,
        "kind": "msr",
        "name": "IA32_LBR_DEPTH",
        "index": "0x14cf",
        "value": "0x28",
        "fields": [
            {"name": "DEPTH", "high": 63, "low": 0, "value": "0x28", "words": "entries in use; a write wipes them"}
        ],
        "reserved": "0x0",
        "notes": ["40 entries, where CPUID.1CH:EAX[4] is set"],
    }


WAY_OUT = "name one as IA32_LBR_CTL or LBR_CTL, or give its number in hexadecimal, as 0x14ce or 14ceH"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lbr_ctrl", "1"], f"no register is called 'lbr_ctrl': {WAY_OUT}"),
        (["10", "1"], f"MSR 10H is none of the branch-record and performance-monitoring registers: {WAY_OUT}"),
        (["14ce", "seven"], "'seven' is not a register's value: give it in hexadecimal, as rdmsr prints it"),
        (["14ce", "-1"], None),
        (
            ["14ce", "10000000000000000"],
            "'10000000000000000' does not fit in 64 bits: give a register's value in hexadecimal, as rdmsr prints it",
        ),
        (["14ce", "1", "-f", "3:4"], "'3:4' is not a bit field: give HIGH:LOW, as 59:56, with 63 >= HIGH >= LOW"),
        (["14ce", "1", "-f", "64:0"], "'64:0' is not a bit field: give HIGH:LOW, as 59:56, with 63 >= HIGH >= LOW"),
        ([], "nothing to decode, or two things at once: give MSR and VALUE, or --xsave FILE, or --cpuid FILE"),
        (["14ce"], "nothing to decode, or two things at once: give MSR and VALUE, or --xsave FILE, or --cpuid FILE"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(words: list[str], said: str | None) -> None:
    ran = archlbr("decode", *words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said is None or ran.err == f"archlbr: {said}\n"
