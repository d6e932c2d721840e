"""What a run is, told from others: its recipe, base and text, and what of it may change."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from hfgrow.checkpoint.compute.look import Look
from hfgrow.checkpoint.files import CONFIG, LocalFolder, hash_file
from hfgrow.checkpoint.read import read
from hfgrow.console import Progress
from hfgrow.data.token_folder import fingerprint
from hfgrow.data.views import TokenView
from hfgrow.errors import ModelError, TrainingError, argument, printable
from hfgrow.train.recipe.parts import SCHEDULE_FREE
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import Train
from hfgrow.train.schedules import new_schedule_of, schedule_of

_TEXT, _BASE, _DATA = "text ", "base ", "data"
# Where base, tokenizer and text lie, or are called on the Hub: their bytes decide.
_NOTE = re.compile(r"(base|tokenizer)( commit)?|data\.(train|validation)\.\d+\.path")
# What may differ where the user allows another number of processes.
_WORLD = ("world.", "micro_batch_size")
# What may differ in the stage that a run stands in, as long as the steps behind it stay the same.
_AHEAD = ("tokens", "schedule", "warmup", "new_warmup", "decay", "min_learning_rate", "mask_ramp")
_SCHEDULED = (*_AHEAD, "learning_rate")
_MEASURED = "evaluation.every_tokens"
_MOST_TOLD = 4


class Difference(NamedTuple):
    """Something that is not as it was: its name, and both values."""

    key: str
    old: Any
    new: Any

    @property
    def stage(self) -> int:
        """The stage of the recipe that it belongs to; -1 for none."""
        first, _, rest = self.key.partition(".")
        number = rest.partition(".")[0]
        return int(number) if first == "stages" and number.isdecimal() else -1

    @property
    def is_ahead(self) -> bool:
        """Whether it may concern only what is still to come of its stage."""
        return self.key.rpartition(".")[2] in _AHEAD and ".train." in self.key

    def is_free(self, recipe: Recipe) -> bool:
        """Whether no weight depends on it."""
        if self.key == _MEASURED:
            # To look at Schedule-Free's mean rounds it, and a stage may end by what is seen.
            return recipe.optimizer.name != SCHEDULE_FREE and not recipe.may_end_early
        # A run of an older hfgrow has no hash of its base's config.
        return is_note(self.key) or (self.key == f"{_BASE}{CONFIG}" and self.old is None)

    @property
    def is_of_the_world(self) -> bool:
        """Whether it is about processes."""
        return self.key.startswith(_WORLD)

    def __str__(self) -> str:
        for kind, what in ((_TEXT, "the text of"), (_BASE, "the base's")):
            if self.key.startswith(kind):
                return f"{what} {printable(self.key.removeprefix(kind), 80)} has changed since"
        old, new = (printable(repr(value), 60) for value in (self.old, self.new))
        return f"{printable(self.key)} was {old}, is {new}"


def is_note(key: str) -> bool:
    """Say whether a key tells where something lies, and not what it is."""
    return _NOTE.fullmatch(key) is not None


def base_identity(folder: Path, progress: Progress) -> dict[str, Any]:
    """Return what tells a base from others: size and sha256 of its weight files and its config.

    Raises:
        ModelError: A weight is NaN or infinite, wherever it stands.
    """
    plan = read(LocalFolder(folder))
    with Look(plan, plan.files, finite=True).beside() as look:
        seen = look.result(progress)
    if seen.not_finite is not None:
        raise ModelError(
            f"{seen.not_finite}", hint="such a model cannot be trained; begin with another base"
        )
    nbytes = {name: file.nbytes for name, file in plan.files.items()}
    config = folder / CONFIG
    found = {f"{_BASE}{name}": [nbytes[name], seen.sha256[name]] for name in plan.files}
    return found | {f"{_BASE}{CONFIG}": [config.stat().st_size, hash_file(config)]}


def text_identity(views: Sequence[TokenView], order: str) -> dict[str, Any]:
    """Return what tells the text of a run from others.

    Args:
        views: What is trained on.
        order: The hash of what decides all tokens and their order.
    """
    sources = (view.files.index.sources[i] for view in views for i in view.sources)
    of_files = {f"{_TEXT}{one.label}": fingerprint({}, [one.identity]) for one in sources}
    return {**of_files, _DATA: order}


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], recipe: Recipe
) -> list[Difference]:
    """Return what is not as it was, by name; the hash of all only where nothing else says why."""
    is_same_text = before.get(_DATA) == now.get(_DATA)
    all_found = (
        Difference(key, before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not (is_same_text and key.startswith(_TEXT))
    )
    found = [one for one in all_found if not one.is_free(recipe)]
    return [one for one in found if one.key != _DATA] or found


def check_checkpoint(
    name: str,
    before: Mapping[str, Any],
    identity: Mapping[str, Any],
    recipe: Recipe,
    *,
    stage: int,
    stage_steps: int,
) -> None:
    """Refuse a checkpoint that another run has saved.

    How many processes saved it is the business of the run.

    Args:
        name: What messages call it.
        before: What the run that saved it was.
        identity: What the run is that would go on from it.
        recipe: The recipe of that.
        stage: The stage that it stands in; later ones may be others than they were.
        stage_steps: The steps of the stage that are done.

    Raises:
        TrainingError: They differ in something that its weights depend on.
    """
    found = [
        one
        for one in differences(before, identity, recipe)
        if one.stage <= stage and not one.is_of_the_world
    ]
    if is_same_so_far(before, recipe, stage, stage_steps):
        found = [one for one in found if one.stage < stage or not one.is_ahead]
    if found:
        raise TrainingError(
            f"checkpoint {printable(name)} is of another run: {_differences_in_words(found)}",
            hint="move it somewhere else; the run then goes on from the one before it",
        )


def is_same_so_far(before: Mapping[str, Any], recipe: Recipe, stage: int, num_steps: int) -> bool:
    """Say whether the steps of a stage that are done would have been the same with other spans.

    Args:
        before: What the run was begun with, by name.
        recipe: What it is to go on with.
        stage: The stage that it stands in, which is not trained to its end.
        num_steps: The steps of it that are done.
    """
    old = _begun_with(before, stage)
    new = recipe.stages[stage].train if stage < len(recipe.stages) else None
    if old is None or new is None:
        return False
    size = recipe.batch_tokens
    if num_steps > new.num_steps(size) or old.mask_ramp_tokens != new.mask_ramp_tokens:
        return False
    was_measured = num_steps == old.num_steps(size) != new.num_steps(size)
    if was_measured and recipe.optimizer.name == SCHEDULE_FREE:
        return False
    steps = range(0, num_steps * size, size)
    for one, other in (
        (schedule_of(old, size), schedule_of(new, size)),
        (new_schedule_of(old, size), new_schedule_of(new, size)),
    ):
        if one is None or other is None:
            # What has a schedule of its own is a group of its own in the optimizer's state.
            if one is not other:
                return False
        elif any(one.of_step(at, size) != other.of_step(at, size) for at in steps):
            return False
    return True


def _begun_with(before: Mapping[str, Any], stage: int) -> Train | None:
    """Return the stage that a run was begun with; None where it trains nothing."""
    prefix = f"stages.{stage}.train."
    own = {key.removeprefix(prefix): before[key] for key in before if key.startswith(prefix)}
    # Patterns of what trains stand apart, and have no part in the schedule.
    content = {key: value for key, value in own.items() if key in _SCHEDULED}
    try:
        return Train.model_validate(content)
    except ValidationError:
        return None


def refusal(differing: Sequence[Difference], final: Path, *, is_finished: bool) -> TrainingError:
    """Return the error of a run that would not be the one that was begun.

    Args:
        differing: What differs in something that the result depends on.
        final: The folder of the finished model.
        is_finished: Whether it is there.
    """
    said = _differences_in_words(differing)
    hint = "give the recipe that it was begun with, or choose another output"
    if is_finished:
        hint = f"begin in another output, with base: {printable(final, 200)} to train on"
    elif all(one.is_of_the_world for one in differing):
        hint = (
            f"add {argument('allow_world_size_change')}: the batch and its order stay, roundings "
            "do not"
        )
    elif all(one.key.startswith((_TEXT, _BASE)) for one in differing):
        hint = "put it back as it was, or begin in another output"
    elif all(one.is_ahead for one in differing):
        hint = (
            "a stage can be given other spans while the steps behind it stay the same: a decay "
            "that has not begun, a warmup in tokens, a mask_ramp in tokens"
        )
    done = "the run is finished, and" if is_finished else "the run"
    return TrainingError(f"{done} was begun with something else: {said}", hint=hint)


def _differences_in_words(differing: Sequence[Difference]) -> str:
    said = "; ".join(map(str, differing[:_MOST_TOLD]))
    more = len(differing) - _MOST_TOLD
    return f"{said} and {more} more" if more > 0 else said
