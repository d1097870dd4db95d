"""perf's branch filters against the table of reference architecture.md 6.2, its bits written out by hand."""

from __future__ import annotations

import pytest

from archlbr.errors import InputError
from archlbr.perf.filters import lbr_ctl, parse_filter

# PERF_SAMPLE_BRANCH_ bit -> IA32_LBR_CTL bits: 16 JCC, 17 REL_JMP, 18 IND_JMP, 19 REL_CALL, 20 IND_CALL, 21 RET,
# 22 OTHER_BRANCH.
TABLE = [
    (0, 0x4),
    (1, 0x2),
    (2, 0),
    (3, 0x7F0000),
    (4, 0x580000),
    (5, 0x600000),
    (6, 0x100000),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0x10000),
    (11, 0x380008),
    (12, 0x40000),
    (13, 0x80000),
    (14, 0),
    (15, 0),
    (16, 0),
    (17, 0),
    (18, 0),
    (19, 0),
]


@pytest.mark.parametrize(("bit", "ctl"), TABLE)
def test_each_sample_bit_becomes_the_ctl_bits_of_the_table(bit: int, ctl: int) -> None:
    assert lbr_ctl(1 << bit) == ctl


@pytest.mark.parametrize(
    ("text", "sample_type", "ctl"),
    [
        ("any", 0x9, 0x7F0004),
        ("any,u", 0x9, 0x7F0004),
        ("any,k", 0xA, 0x7F0002),
        ("any,u,k", 0xB, 0x7F0006),
        ("any_call", 0x11, 0x580004),
        ("any_ret", 0x21, 0x600004),
        ("ind_call", 0x41, 0x100004),
        ("abort_tx", 0x81, 0x4),
        ("in_tx,any", 0x109, 0x7F0004),
        ("cond", 0x401, 0x10004),
        ("ind_jmp", 0x1001, 0x40004),
        ("call", 0x2001, 0x80004),
        ("cond,call,ind_jmp", 0x3401, 0xD0004),
        ("stack", 0x801, 0x38000C),
        ("stack,u,k", 0x803, 0x38000E),
        ("ANY, U", 0x9, 0x7F0004),
        ("save_type,any", 0x10009, 0x7F0004),
        ("hv", 0xC, 0x7F0000),
    ],
)
def test_a_filter_is_read_as_perf_reads_it(text: str, sample_type: int, ctl: int) -> None:
    assert parse_filter(text) == (sample_type, ctl)


def test_levels_alone_mean_any_branch_at_these_levels() -> None:
    assert parse_filter("k") == (0xA, 0x7F0002)


def test_the_levels_of_the_event_hold_when_the_filter_names_none() -> None:
    assert parse_filter("cond", levels=0x3) == (0x403, 0x10006)


def test_an_unknown_filter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError) as refusal:
        parse_filter("any,jumps")
    assert str(refusal.value) == (
        "unknown branch filter 'jumps': use a comma-separated list of u, k, hv, any, any_call, any_ret, ind_call, "
        "abort_tx, in_tx, no_tx, cond, ind_jmp, call, no_flags, no_cycles, save_type, stack, hw_index, priv, counter"
    )


@pytest.mark.parametrize("text", ["", ",", "any,", "any;u"])
def test_a_filter_of_no_names_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="unknown branch filter"):
        parse_filter(text)


def test_call_stack_mode_goes_with_no_other_branches() -> None:
    with pytest.raises(InputError) as refusal:
        parse_filter("stack,cond,u")
    assert str(refusal.value) == "branch filter 'stack' cannot be combined with cond: name it alone or with u, k"
