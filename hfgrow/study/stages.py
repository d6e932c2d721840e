"""The stages of a run of a study: those of its base, then growth and training to the target."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hfgrow.errors import UsageError, printable
from hfgrow.study.arms import Arm, Base
from hfgrow.study.recipe import StudyRecipe
from hfgrow.train.recipe.fields import Tokens
from hfgrow.train.recipe.stages import takes_seed

_COUNT: TypeAdapter[int] = TypeAdapter(Tokens)


def arm_stages(study: StudyRecipe, arm: Arm, seed: int) -> list[dict[str, Any]]:
    """Return what an arm does after its base: growths, and training that adds up to `D`.

    Args:
        study: The study.
        arm: One of its arms that grow.
        seed: The seed of the run; growths that draw at random take it unless they name their own.

    Raises:
        UsageError: The trainings do not add up to `D`, or the last stage is none.
    """
    common = study.train | arm.train
    if arm.grow is not None:
        grows = [arm.grow] if isinstance(arm.grow, dict) else arm.grow
        return [*({"grow": _seeded(grow, seed)} for grow in grows), {"train": common}]
    whole = left = _tokens(common)
    stages: list[dict[str, Any]] = []
    given = arm.stages or ()
    for number, stage in enumerate(given):
        if stage.grow is not None:
            stages.append({"grow": _seeded(stage.grow, seed)})
            continue
        tokens = left
        if "tokens" in stage.settings:
            tokens = _tokens(stage.settings)
        elif stage.share is not None:
            tokens = round(stage.share * whole)
        if tokens < 1:
            raise UsageError(f"stages.{number}.train: nothing is left of the {whole:,} tokens")
        left -= tokens
        stages.append({"train": common | stage.settings | {"tokens": tokens}})
    if not given or given[-1].train is None:
        raise UsageError(
            "its stages do not end in training, so that nothing would measure what it ends as",
            hint="add - train: {} at the end",
        )
    # Shares are rounded one by one.
    if abs(left) > len(stages):
        raise UsageError(
            f"its stages train on {whole - left:,} tokens, not on the {whole:,} of train.tokens",
            hint="shares add up to 1, or the last training has none and takes what is left",
        )
    return stages


def base_stage(study: StudyRecipe, base: Base) -> dict[str, Any]:
    """Return the stage that trains a base."""
    assert study.base_tokens is not None
    tokens = max(1, round(study.base_tokens * base.factor))
    return {"train": study.base_train | base.train | {"tokens": tokens}}


def _seeded(grow: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return a growth whose random parts differ from seed to seed."""
    takes = takes_seed(grow.get("operator"))
    return {**grow, "seed": seed} if takes and "seed" not in grow else dict(grow)


def _tokens(train: Mapping[str, Any]) -> int:
    """Return the tokens of a training, which may be written 2M.

    Raises:
        UsageError: They are no number of tokens.
    """
    value = train.get("tokens")
    try:
        return _COUNT.validate_python(value)
    except ValidationError as error:
        (fault,) = error.errors(include_url=False)
        shown = "null" if value is None else printable(repr(value))
        raise UsageError(f"train.tokens is {shown}; expected {fault['msg']}") from None
