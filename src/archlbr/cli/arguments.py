"""What the parser cannot say: `-b` of `record`, which takes a filter or none.

The shell's words come in, the words the parser understands go out. `perf record -b` takes no filter and means any;
`archlbr record -b FILTER` names one (design: the face).
"""

from __future__ import annotations

from archlbr.perf.filters import looks_like_filter

SAMPLING_VERBS = ("record",)
# The options of these verbs that take the next word; the first word that is neither is the program.
VALUE_OPTIONS = {
    "-j",
    "--branch-filter",
    "-c",
    "--count",
    "-o",
    "--output",
    "--format",
    "--engine",
    "-e",
    "--event",
    "--period-jitter",
}


def spell_out_branch_flag(words: list[str]) -> list[str]:
    """Return the words with a bare `-b` or `--branch-any` of `record` written as `-j FILTER`.

    The word after it is a filter when it is the name of one, holds a comma, or has `--` after it; else it is the
    program or an option, and the filter is `any`, as in perf. The program's own words stay as they are.
    """
    if not words or words[0] not in SAMPLING_VERBS:
        return words
    place = 1
    while place < len(words) and words[place].startswith("-") and words[place] != "--":
        if words[place] in ("-b", "--branch-any"):
            named = _is_filter(words[place + 1 : place + 3])
            return [*words[:place], "-j", *([] if named else ["any"]), *words[place + 1 :]]
        place += 2 if words[place] in VALUE_OPTIONS else 1
    return words


def _is_filter(following: list[str]) -> bool:
    if not following or following[0].startswith("-"):
        return False
    return looks_like_filter(following[0]) or following[1:] == ["--"]
