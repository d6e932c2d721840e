"""The model after each stage of a recipe that begins with a fresh one: no weight is made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.families import FAMILIES
from hfgrow.job import planned
from hfgrow.names import SINGLE
from hfgrow.plan import GrowthPlan, LayerSource, TensorPlan
from hfgrow.study.accounting import StageCost
from hfgrow.tensor_recipes import Stored
from hfgrow.train.flops import arithmetic
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_parts import FreshModel


def fresh_plan(model: Mapping[str, Any]) -> GrowthPlan:
    """Return the plan of a model that does not exist yet.

    Args:
        model: Its config; what is left out is transformers' default.

    Raises:
        UsageError: transformers refuses it.
    """
    from transformers import AutoConfig

    auto_config: Any = AutoConfig
    settings = dict(model)
    model_type = settings.pop("model_type")
    try:
        config = auto_config.for_model(model_type, **settings).to_dict()
    except Exception as error:
        raise UsageError(f"transformers refuses the config: {printable(error, 300)}") from error
    config = {key: value for key, value in config.items() if value is not None}
    family = FAMILIES[model_type]
    config |= {"model_type": model_type, "architectures": [family.architecture]}
    return GrowthPlan(
        folder="",
        config=config,
        family=model_type,
        layer_map=tuple(LayerSource(i) for i in range(config["num_hidden_layers"])),
        tensors={
            name: TensorPlan("F32", Stored(SINGLE, name, 0, shape, "F32"))
            for name, shape in family.shapes(config, tied=family.is_tied(config)).items()
        },
        files={},
    )


def grown_configs(
    recipe: Recipe,
) -> tuple[tuple[Mapping[str, Any], ...], tuple[LayerSource, ...] | None]:
    """Return the config of the model after each stage, and where its layers come from.

    Args:
        recipe: A recipe that begins with a fresh model.

    Raises:
        UsageError: A growth cannot be.
    """
    assert isinstance(recipe.base, FreshModel)
    plan = fresh_plan(recipe.base.config)
    configs, has_grown = [], False
    for number, stage in enumerate(recipe.stages):
        if stage.grow:
            has_grown = True
            try:
                plan = planned(plan, [stage.grow.step], is_draft=True)
            except UsageError as error:
                raise UsageError(f"stages.{number}: {error}", hint=error.hint) from error
        configs.append(plan.config)
    return tuple(configs), plan.layer_map if has_grown else None


def costs_of(
    recipe: Recipe, configs: Sequence[Mapping[str, Any]], *, num_base_stages: int
) -> Iterator[StageCost]:
    """Yield what every stage of training costs.

    Args:
        recipe: The recipe.
        configs: The config of the model after each stage.
        num_base_stages: How many of its first stages are those of the base.
    """
    for number, (stage, config) in enumerate(zip(recipe.stages, configs, strict=True)):
        if stage.train is None:
            continue
        found = arithmetic(config, recipe.data.sequence_length)
        yield StageCost(
            number=number,
            tokens=stage.train.num_steps(recipe.batch_tokens) * recipe.batch_tokens,
            num_parameters=found.num_parameters,
            flops=float(found.headline_flops),
            exact_flops=found.exact_flops,
            is_base=number < num_base_stages,
        )
