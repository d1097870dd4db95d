"""`archlbr replay`: run one interleaving again from the line that `archlbr check` printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.check.replay import Line
    from archlbr.contract.world import World
    from archlbr.host import Action


def replay(line: Annotated[str, typer.Argument(metavar="LINE", help="A line that `archlbr check` printed.")]) -> int:
    """Replay an interleaving step by step; exit 1, since it ends in a violation, and 2 when it no longer does."""
    from archlbr.check import replay as lines
    from archlbr.contract.lanes import as_text, model_of, steps
    from archlbr.contract.properties import BIT, BY_NAME

    told = lines.decode(line)
    if told.claim not in BY_NAME:
        raise InputError(f"the replay line names no property of this version ({told.claim}): run `archlbr check` again")
    run = lines.run(model_of(told.model), told)
    claim = BY_NAME[told.claim]
    if told.loop is None and not run.states[-1].seen & BIT[told.claim]:
        raise InputError(f"the replay line no longer applies: it does not break {told.claim} any more; check again")
    if told.loop is not None and (told.loop > len(run.actions) or run.states[told.loop] != run.states[-1]):
        raise InputError(
            "the replay line no longer applies: it does not come back to where its cycle starts; check again"
        )
    if told.loop is not None and not _owes(run.states[told.loop :], run.actions[told.loop :], told):
        raise InputError(
            f"the replay line no longer applies: its cycle keeps no fair run from {told.claim} any more; check again"
        )
    print(f"{told.model} violates {told.claim}: {claim.says}")
    print("\n".join(as_text(steps(run.states, run.actions), told.loop)))
    return 1


def _owes(states: Sequence[World], cycle: Sequence[Action], told: Line) -> bool:
    from archlbr.check.liveness import owes_for_ever
    from archlbr.check.model import RESPONSE
    from archlbr.contract.lanes import design_of, model_of
    from archlbr.contract.scenarios import named
    from archlbr.contract.verdicts import claims, class_of

    design, _, scenario = told.model.partition("/")
    asked = [
        claim
        for claim in claims(design_of(design), named(scenario))
        if (claim.name, claim.kind) == (told.claim, RESPONSE)
    ]
    return bool(asked) and owes_for_ever(model_of(told.model), asked[0], states, cycle, class_of)
