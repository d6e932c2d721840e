"""What the keys of a recipe must say together."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hfgrow.train.recipe_fields import Location
from hfgrow.train.recipe_parts import FreshModel, Muon, ScheduleFreeAdamW
from hfgrow.train.recipe_stages import Grow, Train

if TYPE_CHECKING:
    from hfgrow.train.recipe import Recipe

# Where it stands, what it is, what was expected.
Fault = tuple[Location, object, str]


def faults_of(recipe: "Recipe") -> Iterator[Fault]:
    """Yield what does not go together."""
    yield from _batch_faults(recipe)
    yield from _base_faults(recipe)
    yield from _stage_faults(recipe)


def _tokens_at_once(recipe: "Recipe") -> int:
    """Return the tokens of one micro-batch of every process."""
    micro_batch = recipe.micro_batch_size * recipe.data.sequence_length
    return micro_batch * recipe.world.processes


def _batch_faults(recipe: "Recipe") -> Iterator[Fault]:
    unit, tokens = _tokens_at_once(recipe), recipe.batch_tokens
    if tokens % unit:
        below = tokens // unit * unit
        nearest = f"{below} or {below + unit}" if below else str(unit)
        what = (
            f"a multiple of {unit} = micro_batch_size {recipe.micro_batch_size} x "
            f"data.sequence_length {recipe.data.sequence_length} x "
            f"world.processes {recipe.world.processes}, such as {nearest}"
        )
        yield ("batch_tokens",), tokens, what
    for i, stage in enumerate(recipe.stages):
        if stage.train and stage.train.tokens < tokens:
            what = f"at least one batch, batch_tokens {tokens}"
            yield ("stages", i, "train", "tokens"), stage.train.tokens, what


def _base_faults(recipe: "Recipe") -> Iterator[Fault]:
    if not isinstance(recipe.base, FreshModel):
        return
    if recipe.tokenizer is None:
        yield ("tokenizer",), None, "a model that has one, since base is a config"
    positions = recipe.base.config.get("max_position_embeddings")
    if isinstance(positions, int) and positions < recipe.data.sequence_length:
        what = f"at most max_position_embeddings of base.config, {positions}"
        yield ("data", "sequence_length"), recipe.data.sequence_length, what


def _stage_faults(recipe: "Recipe") -> Iterator[Fault]:
    trained = False
    grown: list[Grow] = []
    for i, stage in enumerate(recipe.stages):
        if stage.train:
            yield from _train_faults(recipe, stage.train, i, grown)
            trained, grown = True, []
        elif stage.grow:
            yield from _grow_faults(recipe, stage.grow, i, trained=trained)
            grown.append(stage.grow)
    if not trained:
        yield ("stages",), ["grow"] * len(recipe.stages), "a train stage among them"


def _train_faults(recipe: "Recipe", train: Train, i: int, grown: Sequence[Grow]) -> Iterator[Fault]:
    if isinstance(recipe.optimizer, ScheduleFreeAdamW) and train.schedule != "constant":
        what = f"constant, the only schedule of {recipe.optimizer.name}"
        yield ("stages", i, "train", "schedule"), train.schedule, what
    if train.mask_ramp is not None and not (grown and grown[-1].is_masked):
        what = "none: no growth with a mask (random-depth, random-width) stands just before"
        if masked := [growth.operator for growth in grown if growth.is_masked]:
            others = [growth.operator for growth in grown if not growth.is_masked]
            what += f"; try the order {', '.join([*others, *masked])}"
        yield ("stages", i, "train", "mask_ramp"), train.mask_ramp, what


def _grow_faults(recipe: "Recipe", grow: Grow, i: int, *, trained: bool) -> Iterator[Fault]:
    location: Location = ("stages", i, "grow", "optimizer_state")
    if grow.optimizer_state == "reset":
        return
    if not trained:
        yield location, grow.optimizer_state, "reset: nothing was trained before this growth"
    elif isinstance(recipe.optimizer, Muon):
        yield location, grow.optimizer_state, "reset: the momentum of muon begins anew"
