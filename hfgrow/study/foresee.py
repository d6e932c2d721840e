"""What a run of a study will cost, stage by stage, and what it ends as: no weight is made."""

from collections.abc import Iterator, Mapping
from typing import Any

from hfgrow.errors import UsageError
from hfgrow.study.accounting import StageCost
from hfgrow.train.dry_run import Foreseen, foresee, stage_cost
from hfgrow.train.flops import arithmetic
from hfgrow.train.recipe.hints import in_keys
from hfgrow.train.recipe.parts import FreshModel
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.weights import fresh_plan


def foreseen(recipe: Recipe) -> tuple[Foreseen, ...]:
    """Return the model after each stage of a recipe that begins with a fresh one.

    Raises:
        GrowthError: A stage cannot be.
    """
    assert isinstance(recipe.base, FreshModel)
    with in_keys():
        return tuple(foresee(recipe, fresh_plan(recipe.base.config), None))


def costs_of(
    recipe: Recipe, models: tuple[Foreseen, ...], *, num_base_stages: int
) -> Iterator[StageCost]:
    """Yield what every stage of training costs, and of growth that learns.

    Args:
        recipe: The recipe.
        models: The model after each stage.
        num_base_stages: How many of its first stages are those of the base.
    """
    length = recipe.data.sequence_length
    for number, (stage, model) in enumerate(zip(recipe.stages, models, strict=True)):
        cost = stage_cost(recipe, model)
        if cost is None:
            continue
        tokens, exact_flops = cost
        found = arithmetic(model.plan.config, length)
        yield StageCost(
            number=number,
            tokens=tokens,
            num_parameters=found.num_parameters,
            flops=float(found.headline_flops),
            exact_flops=exact_flops,
            is_base=number < num_base_stages,
            is_growth=stage.train is None,
        )


def check_target(model: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a run that ends as something else than the target.

    Args:
        model: The config of the target as a study says it.
        config: That of the model that the run ends as, every default in it.

    Raises:
        UsageError: They differ.
    """
    target = fresh_plan(model).config
    wrong = [
        f"{key} is {config.get(key)}, not {target.get(key)}"
        for key in sorted(target.keys() | config.keys())
        if config.get(key) != target.get(key)
    ]
    if wrong:
        raise UsageError(
            f"it does not end as the target: {', '.join(wrong)}",
            hint="the base times its growth must give `model`",
        )
