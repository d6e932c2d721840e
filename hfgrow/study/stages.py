"""The stages of a run of a study: those of its base, then growth and training to the target."""

from collections.abc import Mapping
from typing import Any

from hfgrow.study.recipe import Arm, Base, StudyRecipe
from hfgrow.train.recipe_stages import Train, takes_seed

_SHARE = "share"


def arm_stages(study: StudyRecipe, arm: Arm, seed: int) -> list[dict[str, Any]]:
    """Return what an arm does after its base: growths, and training that adds up to `D`.

    Args:
        study: The study.
        arm: One of its arms that grow.
        seed: The seed of the run; growths that draw at random take it unless they name their own.
    """
    if arm.grow is not None:
        grows = [arm.grow] if isinstance(arm.grow, dict) else arm.grow
        return [*({"grow": _seeded(g, seed)} for g in grows), {"train": study.train | arm.train}]
    stages: list[dict[str, Any]] = []
    left = whole = _tokens(study.train)
    for stage in arm.stages or ():
        if isinstance(train := stage.get("train"), dict):
            own = {key: value for key, value in train.items() if key != _SHARE}
            share = train.get(_SHARE)
            tokens = round(share * whole) if isinstance(share, float) and share < 1 else left
            merged = study.train | arm.train | {"tokens": tokens} | own
            left = max(1, left - _tokens(merged))
            stages.append({"train": merged})
        elif isinstance(grow := stage.get("grow"), dict):
            stages.append({"grow": _seeded(grow, seed)})
        else:
            stages.append(dict(stage))
    return stages


def _seeded(grow: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return a growth whose random parts differ from seed to seed."""
    takes = takes_seed(grow.get("operator"))
    return {**grow, "seed": seed} if takes and "seed" not in grow else dict(grow)


def base_stage(study: StudyRecipe, base: Base) -> dict[str, Any]:
    """Return the stage that trains a base."""
    assert study.base_tokens is not None
    tokens = max(1, round(study.base_tokens * base.factor))
    return {"train": study.base_train | base.train | {"tokens": tokens}}


def _tokens(train: Mapping[str, Any]) -> int:
    """Return the tokens of a stage that may be written 2M; what is wrong with it shows later."""
    try:
        return Train.model_validate(
            {"tokens": train.get("tokens"), "learning_rate": 1, "warmup": 0, "decay": 0}
        ).tokens
    except ValueError:
        return 1
