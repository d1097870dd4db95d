"""Damaged inputs are taken or refused, no parser ends in another exception: `campaigns.fuzz` sixty times a parser."""

from __future__ import annotations

import shutil

import pytest
from campaigns.fuzz import SHARES
from campaigns.parsers import PARSERS, feed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archlbr.cli.messages import complain
from archlbr.errors import InputError

NEED_GCC = {"elf-run", "elf-names"}
# Bytes that mean something in one format or another.
TELLING = [
    bytes(1),
    b"\xff",
    bytes(8),
    b"\xff" * 8,
    b"\x80",
    b"\n",
    b" ",
    b":",
    b".",
    b"/",
    b"(",
    b"[",
    b"{",
    b'"',
    b"-1",
]
PIECE = st.one_of(st.sampled_from(TELLING), st.binary(max_size=12))
# Where (a share of the length), how many bytes go, what comes in their place, how often.
CHANGE = st.tuples(st.floats(0, 1), st.integers(0, 16), PIECE, st.sampled_from([1, 1, 1, 40]))


def changed(content: bytes, changes: list[tuple[float, int, bytes, int]]) -> bytes:
    for share, gone, piece, times in changes:
        at = int(share * len(content))
        content = content[:at] + piece * times + content[at + gone :]
    return content


@pytest.mark.parametrize("name", PARSERS)
def test_a_damaged_input_is_taken_or_refused(name: str) -> None:
    if name in NEED_GCC and shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: no ELF file to damage")
    parser = PARSERS[name]
    seeds = parser.seeds()
    answers = set()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds), st.lists(CHANGE, min_size=1, max_size=4), st.booleans())
    @example(seeds[0], [], False)
    @example(seeds[0], [(0.0, 1 << 20, b"", 1)], False)
    @example(seeds[0], [(0.0, 1 << 20, b"[", 100_000)], False)
    @example(seeds[-1], [(0.5, 3, b"", 1)], True)
    def try_it(seed: bytes, changes: list[tuple[float, int, bytes, int]], seal: bool) -> None:
        answers.add(bool(feed(parser, changed(seed, changes), seal)))

    try_it()
    # Some are refused and some are not, or the changes are too small or too large to tell anything.
    assert answers == {True, False}


def test_the_campaign_feeds_each_parser() -> None:
    assert set(SHARES) == set(PARSERS)
    assert sum(SHARES.values()) == 1000


def machine_without_pages() -> bytes:
    """Return a machine whose first frame of pages is empty."""
    [whole] = PARSERS["machine-snapshot"].seeds()
    at = whole.index(b"PAGE")
    return whole[: at + 8] + bytes(8) + whole[at + 16 + int.from_bytes(whole[at + 8 : at + 16], "little") :]


# What the fuzzers found, each once.
FOUND = [
    ("vcpu-snapshot", bytes(700) + b"x", True, "counts do not add up"),
    ("vcpu-snapshot", bytes(100), True, "counts do not add up"),
    ("machine-snapshot", machine_without_pages(), True, "pages outside of its memory"),
    ("replay-line", b"archlbr-replay-1:vlbr-6.1/steady:S1:0..1:0", True, "are no choices"),
    ("replay-line", b"archlbr-replay-1:vlbr-6.1/steady:S1:0.-1:0", True, "are no choices"),
    ("replay-line", b"archlbr-replay-1:vlbr-6.1/steady:S1:0.vlbr-6:0", True, "are no choices"),
    ("replay-line", b"archlbr-replay-1:\xff:S1:0:0", False, "checksum differs"),
    ("replay-line", b"archlbr-replay-1:vlbr-6.12/denied:L1:0.0/9:0", True, "where its cycle starts"),
    ("recording", b"[" * 100_000, False, "not JSON"),
    ("words", b"select " + b"(" * 5000, False, "5000 words"),
    ("words", b"select " + b"not " * 5000, False, "5000 words"),
]


@pytest.mark.parametrize(("name", "content", "seal", "said"), FOUND)
def test_what_was_found_is_refused(name: str, content: bytes, seal: bool, said: str) -> None:
    assert said in feed(PARSERS[name], content, seal)


def test_another_exception_is_a_finding() -> None:
    broken = PARSERS["words"]._replace(read=lambda content: content.index(b"x"))
    assert feed(broken, b"x") == ""
    with pytest.raises(ValueError, match="not found"):
        feed(broken, b"y")


def test_a_refusal_that_says_nothing_is_a_finding() -> None:
    def refuse(_content: bytes) -> None:
        raise InputError(" ")

    with pytest.raises(AssertionError, match="says nothing"):
        feed(PARSERS["words"]._replace(read=refuse), b"x")


def test_what_steers_a_terminal_is_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    complain("cannot read a\x1b[31m\nfile\u202e: it is not there")
    assert capsys.readouterr().err == "archlbr: cannot read a\\x1b[31m file\\x202e: it is not there\n"
