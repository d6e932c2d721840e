"""A recipe in words: what it will do, in a few lines."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from hfgrow.errors import printable
from hfgrow.lineage.describe import describe_step
from hfgrow.train.foresee import Foreseen
from hfgrow.train.recipe import Recipe


def recipe_lines(
    recipe: Recipe,
    foreseen: Sequence[Foreseen] = (),
    flops: Mapping[int, float] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield what a recipe will do, stage by stage.

    Args:
        recipe: The recipe.
        foreseen: The model after each stage, if somebody looked.
        flops: What every stage of training costs, where that is known.
    """
    sizes = {
        model.number: f" to {model.num_hidden_layers} layers, {model.num_parameters:,} parameters"
        if recipe.stages[model.number].grow
        else f" {model.num_hidden_layers} layers, {model.num_parameters:,} parameters,"
        for model in foreseen
    }
    base = recipe.base if isinstance(recipe.base, str) else "a fresh model"
    yield f"{printable(base)} to {printable(recipe.output, 200)}"
    for number, stage in enumerate(recipe.stages):
        if stage.grow:
            grow = stage.grow
            step = describe_step(grow.operator, grow.arguments)
            kept = f"; optimizer state: {grow.optimizer_state}"
            cost = f"; {flops[number]:.3g} FLOPs" if number in flops else ""
            yield f"  stage {number}: grow by {printable(step)}{sizes.get(number, '')}{kept}{cost}"
        elif stage.train:
            train = stage.train
            steps = train.num_steps(recipe.batch_tokens)
            cost = f"; {flops[number]:.3g} FLOPs" if number in flops else ""
            yield (
                f"  stage {number}: train{sizes.get(number, '')} on {train.tokens:,} tokens, "
                f"{steps:,} steps of {recipe.batch_tokens:,}; {recipe.optimizer.name}, "
                f"{train.schedule}, learning rate {train.learning_rate:g}{cost}"
            )
