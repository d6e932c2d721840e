"""What a run must share with the one that it goes on with, and how what differs is told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from hfgrow.checkpoint.files import LocalFolder, hash_file
from hfgrow.checkpoint.read import read
from hfgrow.errors import TrainingError, printable
from hfgrow.train.data.index import fingerprint
from hfgrow.train.data.views import TokenView
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_parts import SCHEDULE_FREE
from hfgrow.train.recipe_stages import Train
from hfgrow.train.schedules import schedule_of

_TEXT, _BASE, _DATA = "text ", "base ", "data"
# What may differ where the user allows another number of processes.
_WORLD = ("world.", "micro_batch_size")
# What may differ in the stage that a run stands in, as long as the steps behind it stay the same.
_AHEAD = ("tokens", "schedule", "warmup", "decay", "min_learning_rate", "mask_ramp")
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
        """Whether no weight depends on it: to look at Schedule-Free's mean rounds it."""
        return self.key == _MEASURED and recipe.optimizer.name != SCHEDULE_FREE

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


def base_identity(folder: Path) -> dict[str, Any]:
    """Return what tells a base from others: the size and sha256 of its weight files."""
    files = read(LocalFolder(folder)).files
    return {
        f"{_BASE}{name}": [file.nbytes, hash_file(folder / name)] for name, file in files.items()
    }


def text_identity(views: Sequence[TokenView], order: str) -> dict[str, Any]:
    """Return what tells the text of a run from others.

    Args:
        views: What is trained on.
        order: The hash of what decides all tokens and their order.
    """
    sources = (view.files.index.sources[i] for view in views for i in view.sources)
    of_files = {f"{_TEXT}{one.label}": fingerprint({}, [one.identity]) for one in sources}
    return {**of_files, _DATA: order}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return what is not as it was, by name; the hash of all only where nothing else says why."""
    found = [
        Difference(key, before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    return [one for one in found if one.key != _DATA] or found


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
    one, other = schedule_of(old, size), schedule_of(new, size)
    steps = range(0, num_steps * size, size)
    return all(one.of_step(at, size) == other.of_step(at, size) for at in steps)


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
    said = "; ".join(map(str, differing[:_MOST_TOLD]))
    if differing[_MOST_TOLD:]:
        said += f" and {len(differing) - _MOST_TOLD} more"
    hint = "give the recipe that it was begun with, or choose another output"
    if is_finished:
        hint = f"begin in another output, with base: {printable(final, 200)} to train on"
    elif all(one.is_of_the_world for one in differing):
        hint = "add --allow-world-size-change: the batch and its order stay, roundings do not"
    elif all(one.key.startswith((_TEXT, _BASE)) for one in differing):
        hint = "put it back as it was, or begin in another output"
    elif all(one.is_ahead for one in differing):
        hint = (
            "a stage can be given other spans while the steps behind it stay the same: a decay "
            "that has not begun, a warmup in tokens, a mask_ramp in tokens"
        )
    done = "the run is finished, and" if is_finished else "the run"
    return TrainingError(f"{done} was begun with something else: {said}", hint=hint)
