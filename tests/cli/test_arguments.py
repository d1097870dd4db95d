"""`-b` of `record`, which takes a filter or none, as the shell's words say."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from archlbr.cli.app import app
from archlbr.cli.arguments import VALUE_OPTIONS, spell_out_branch_flag


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (["record", "-b", "ls", "-b"], ["record", "-j", "any", "ls", "-b"]),
        (["record", "-b", "any", "ls"], ["record", "-j", "any", "ls"]),
        (["record", "-b", "cond,call", "ls"], ["record", "-j", "cond,call", "ls"]),
        (["record", "-b", "bogus", "--", "ls"], ["record", "-j", "bogus", "--", "ls"]),
        (["record", "-b", "--", "ls"], ["record", "-j", "any", "--", "ls"]),
        (["record", "-c", "7", "--branch-any", "-o", "x", "ls"], ["record", "-c", "7", "-j", "any", "-o", "x", "ls"]),
        (["record", "-b"], ["record", "-j", "any"]),
        (["record", "--", "grep", "-b", "any"], ["record", "--", "grep", "-b", "any"]),
        (["record", "grep", "-b", "any"], ["record", "grep", "-b", "any"]),
        (["record", "-c", "7", "grep", "-b", "any"], ["record", "-c", "7", "grep", "-b", "any"]),
        (["record", "-o", "-b", "ls"], ["record", "-o", "-b", "ls"]),
        (["decode", "-b", "any"], ["decode", "-b", "any"]),
        ([], []),
    ],
)
def test_a_bare_branch_flag_means_any_as_in_perf(given: list[str], understood: list[str]) -> None:
    assert spell_out_branch_flag(given) == understood


def test_each_option_of_record_that_takes_a_word_is_known() -> None:
    group: Any = typer.main.get_command(app)
    taking = [row for row in group.commands["record"].params if row.param_type_name == "option" and not row.is_flag]
    assert {name for row in taking for name in row.opts} - {"-b"} == VALUE_OPTIONS
