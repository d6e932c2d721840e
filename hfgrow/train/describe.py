"""A recipe in words: what it will do, in a few lines."""

from collections.abc import Iterator, Sequence

from hfgrow.describe import describe_step
from hfgrow.errors import printable
from hfgrow.train.foresee import Foreseen
from hfgrow.train.recipe import Recipe


def recipe_lines(recipe: Recipe, foreseen: Sequence[Foreseen] = ()) -> Iterator[str]:
    """Yield what a recipe will do, stage by stage.

    Args:
        recipe: The recipe.
        foreseen: The model after each stage, if somebody looked.
    """
    sizes = {
        model.number: f": {model.num_hidden_layers} layers, {model.num_parameters:,} parameters"
        for model in foreseen
    }
    base = recipe.base if isinstance(recipe.base, str) else "a fresh model"
    yield f"{printable(base)} to {printable(recipe.output, 200)}"
    for number, stage in enumerate(recipe.stages):
        if stage.grow:
            grow = stage.grow
            step = describe_step(grow.operator, grow.arguments)
            kept = f", optimizer state: {grow.optimizer_state}"
            yield f"  stage {number}: grow by {printable(step)}{kept}{sizes.get(number, '')}"
        elif stage.train:
            train = stage.train
            steps = train.num_steps(recipe.batch_tokens)
            yield (
                f"  stage {number}: train on {train.tokens:,} tokens, {steps:,} steps of "
                f"{recipe.batch_tokens:,}; {recipe.optimizer.name}, {train.schedule}, learning "
                f"rate {train.learning_rate:g}"
            )
