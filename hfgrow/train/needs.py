"""What a recipe will cost before it runs: FLOPs of its stages, bytes of checkpoints and of disk."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hfgrow.console import size
from hfgrow.growth.loading import filled_config
from hfgrow.plan.families.table import layer_of
from hfgrow.plan.operators.learn import LEARN
from hfgrow.train.flops import arithmetic, spent_flops
from hfgrow.train.foresee import Foreseen
from hfgrow.train.growth_settings import learning_of
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_parts import Muon

_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run needs.

    Attributes:
        flops: Stage -> its exact FLOPs, of training or of learning maps.
        checkpoint_nbytes: Bytes of the largest checkpoint.
        disk_nbytes: Bytes that the output takes at its largest, without the tokens of the text.
    """

    flops: dict[int, float]
    checkpoint_nbytes: int
    disk_nbytes: int

    def lines(self, keep: int) -> list[str]:
        """Return what it needs in words.

        Args:
            keep: How many checkpoints are kept.
        """
        return [
            f"  in all {sum(self.flops.values()):.3g} FLOPs; a checkpoint takes "
            f"{size(self.checkpoint_nbytes)} and {keep} are kept: up to {size(self.disk_nbytes)} "
            "of disk, without the tokens of the text"
        ]

    def lack(self, output: Path) -> str:
        """Return what a disk lacks, in words; empty where it all fits."""
        parent = output.absolute()
        while not parent.exists():
            parent = parent.parent
        free = shutil.disk_usage(parent).free
        if self.disk_nbytes <= free:
            return ""
        return f"the run may take {size(self.disk_nbytes)} of disk, and {size(free)} are free"


def needs_of(recipe: Recipe, models: Sequence[Foreseen]) -> Needs:
    """Return what a recipe needs.

    Args:
        recipe: The recipe.
        models: The model after each stage.
    """
    flops, checkpoints, kept = {}, [0], 0
    for model in models:
        nbytes = _FLOAT32 * model.num_parameters
        kept += nbytes
        if cost := stage_cost(recipe, model):
            tokens, exact_flops = cost
            flops[model.number] = tokens * exact_flops
        if recipe.stages[model.number].train:
            checkpoints.append(nbytes + _state_nbytes(recipe, model))
    # While one is written, those that are kept lie there still.
    largest = max(checkpoints)
    return Needs(flops, largest, kept + (recipe.checkpoint.keep + 1) * largest)


def stage_cost(recipe: Recipe, model: Foreseen) -> tuple[int, float] | None:
    """Return the tokens of a stage and the exact FLOPs of one; None where nothing learns.

    Args:
        recipe: The recipe.
        model: The model after the stage.
    """
    stage, length = recipe.stages[model.number], recipe.data.sequence_length
    if stage.train:
        tokens = stage.train.num_steps(recipe.batch_tokens) * recipe.batch_tokens
        return tokens, spent_flops(filled_config(model.plan.config), length, model.trained)
    if stage.grow and stage.grow.operator == LEARN:
        asked = learning_of(stage.grow, recipe)
        tokens = (asked.steps or 0) * (asked.batch_tokens or 0)
        return tokens, arithmetic(filled_config(model.plan.config), length).exact_flops
    return None


def _state_nbytes(recipe: Recipe, model: Foreseen) -> int:
    """Return the bytes of the optimizer's state: two moments, or Muon's one of inner matrices."""
    numbers = 0
    for name in model.trained:
        shape = model.plan.tensors[name].shape
        has_one = isinstance(recipe.optimizer, Muon) and len(shape) > 1 and layer_of(name)
        numbers += prod(shape) * (1 if has_one else 2)
    return _FLOAT32 * numbers
