"""What the parser cannot say: `-b` of `record`, which takes a filter or none.

The shell's words come in, the words the parser understands go out. `perf record -b` takes no filter and means any;
`archlbr record -b FILTER` names one (design: the face).
"""

from __future__ import annotations

from archlbr.perf.filters import looks_like_filter

SAMPLING_VERBS = ("record",)


def spell_out_branch_flag(words: list[str]) -> list[str]:
    """Return the words with a bare `-b` or `--branch-any` of `record` written as `-j FILTER`.

    The word after it is a filter when it is the name of one, holds a comma, or has `--` after it; else it is the
    program or an option, and the filter is `any`, as in perf.
    """
    if not words or words[0] not in SAMPLING_VERBS:
        return words
    for place, word in enumerate(words[1:], 1):
        if word == "--":
            break
        if word in ("-b", "--branch-any"):
            following = words[place + 1 : place + 3]
            if following and _is_filter(following):
                return [*words[:place], "-j", *words[place + 1 :]]
            return [*words[:place], "-j", "any", *words[place + 1 :]]
    return words


def _is_filter(following: list[str]) -> bool:
    word = following[0]
    if word.startswith("-"):
        return False
    return looks_like_filter(word) or following[1:] == ["--"]
