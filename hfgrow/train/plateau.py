"""Where a stage ends: its tokens are spent, or the held-out loss has stopped falling.

Both are functions of the recipe and of what was measured, which a checkpoint holds, so that a run
that goes on ends where one would have ended that was never stopped.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hfgrow.train.cadence import is_passed
from hfgrow.train.metrics import Position
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import Train


def has_ended(recipe: Recipe, train: Train, at: Position) -> bool:
    """Say whether a stage has nothing left to train.

    Args:
        train: The stage that the run stands in.
        at: Where the run stands.
    """
    is_spent = at.stage_step >= train.num_steps(recipe.batch_tokens)
    return is_spent or is_at_plateau(recipe, train, at, at.evaluations)


def is_at_plateau(
    recipe: Recipe, train: Train, at: Position, evaluations: Sequence[Mapping[str, Any]]
) -> bool:
    """Say whether what a stage waits for has come.

    Those evaluations count that lie a multiple of `evaluation.every_tokens` apart, once everything
    trains at its peak: where the stage began and where its tokens end make no difference.

    Args:
        train: The stage that the run stands in.
        at: Where the run stands.
        evaluations: What was measured so far, as `Position.evaluations` holds it.
    """
    return train.until is not None and train.until.is_reached(
        _counted(recipe, train, at, evaluations)
    )


def plateau_line(
    recipe: Recipe, train: Train, at: Position, evaluations: Sequence[Mapping[str, Any]]
) -> str:
    """Return why a stage that is at its plateau ends, with the numbers; as `is_at_plateau`."""
    assert train.until is not None
    num_last = train.until.evaluations
    best = min(_counted(recipe, train, at, evaluations)[:-num_last])
    return (
        f"no held-out loss of the last {num_last} was {train.until.plateau:g} or more below the "
        f"best before, {best:.4f}"
    )


def _counted(
    recipe: Recipe, train: Train, at: Position, evaluations: Sequence[Mapping[str, Any]]
) -> list[float]:
    """Return the losses that `is_at_plateau` looks at."""
    every, batch_tokens = recipe.evaluation.every_tokens, recipe.batch_tokens
    first = at.tokens - at.stage_step * batch_tokens + max(1, train.rising_tokens)
    return [
        _loss(line["validation"])
        for line in evaluations
        if line["stage"] == at.stage
        and line["tokens"] >= first
        and is_passed(line["tokens"], every, batch_tokens)
    ]


def _loss(validation: Mapping[str, Any]) -> float:
    """Return the nats a token of all held-out texts together; a model that broke has infinite."""
    num_tokens = sum(text["num_tokens"] for text in validation.values())
    # In the record what is no finite number is null.
    nats = [
        text["num_tokens"] * (math.nan if text["loss"] is None else text["loss"])
        for text in validation.values()
    ]
    loss = math.fsum(nats) / num_tokens
    return loss if math.isfinite(loss) else math.inf
