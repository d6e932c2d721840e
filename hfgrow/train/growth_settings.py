"""What a growth by learned maps is told inside a run."""

from dataclasses import replace

from hfgrow.plan.operators.learn import DEFAULT_STEPS, LearnArguments
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_stages import Grow


def learning_of(grow: Grow, recipe: Recipe) -> LearnArguments:
    """Return the arguments of a stage; what it does not say is as in the rest of the run."""
    asked = LearnArguments.of(grow.arguments)
    return replace(
        asked,
        steps=DEFAULT_STEPS if asked.steps is None else asked.steps,
        sequence_length=recipe.data.sequence_length,
        batch_tokens=asked.batch_tokens or recipe.batch_tokens,
        seed=recipe.seed if asked.seed is None else asked.seed,
    )
