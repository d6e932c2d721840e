"""The folder of a run: what lies where, what it was begun with, and what it can go on with.

recipe.yaml       the recipe, every default spelt out
run.json          what a run must share with the one that it resumes
tokens/           text, tokenised once
stages/NN/NAME    the model after each stage but the last, float32
checkpoints/      the state of training
metrics.jsonl     the record
.trackers/        what trackers keep in files
final/            the model, as it is published
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from pydantic import ValidationError

from hfgrow.checkpoint.compute.look import Look
from hfgrow.checkpoint.files import CONFIG, MANIFEST, RECIPE, RUN, TRAINED, LocalFolder, hash_file
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import Progress
from hfgrow.data.token_folder import INDEX, fingerprint
from hfgrow.data.views import TokenView
from hfgrow.errors import GrowthError, ModelError, OutputError, TrainingError, argument, printable
from hfgrow.lineage.manifest import TrainingLink
from hfgrow.lineage.reading import read_manifest
from hfgrow.train.recipe.parts import SCHEDULE_FREE
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import Train
from hfgrow.train.schedules import schedule_of

METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: Where it lies.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def tokens(self) -> Path:
        """Where tokenised text lies."""
        return self.path / "tokens"

    @property
    def final(self) -> Path:
        """The finished model."""
        return self.path / TRAINED

    @property
    def is_finished(self) -> bool:
        """Whether the finished model is there.

        Raises:
            TrainingError: Something else is.
        """
        if not os.path.lexists(self.final):
            return False
        if not (self.final / MANIFEST).is_file():
            raise TrainingError(
                f"{printable(self.final, 200)} is not the finished model of the run",
                hint="move it somewhere else",
            )
        return True

    @property
    def fresh(self) -> Path:
        """The model of random weights that a run without a base begins with."""
        return self.path / "stages" / "base"

    @property
    def maps(self) -> Path:
        """Where the maps of a growth lie that is being learned."""
        return self.path / "stages" / "maps"

    @property
    def trackers(self) -> Path:
        """Where trackers put what they keep in files."""
        return self.path / ".trackers"

    def stage(self, number: int, name: str) -> Path:
        """Return where the model after a stage lies."""
        return self.path / "stages" / f"{number:02d}" / name

    @property
    def holds_a_run(self) -> bool:
        """Whether there is something to go on with: a checkpoint, or a model that was trained."""
        return self.final.exists() or any(self.checkpoints.glob("step-*")) or self.last_trained >= 0

    @property
    def holds_a_record(self) -> bool:
        """Whether a run has begun here and has written down what it did."""
        return (self.path / RUN).is_file() and (self.path / METRICS).is_file()

    @property
    def last_trained(self) -> int:
        """The number of the last stage whose trained model lies in `stages`, or -1."""
        return max(
            (n for n, folder in self._stages() if any(map(_training_of, folder.glob("[!.]*")))),
            default=-1,
        )

    def trained_tokens(self, number: int) -> int:
        """Return on how many tokens the model of a stage was trained, as its lineage says.

        Raises:
            TrainingError: There is no such model.
        """
        for folder in (self.path / "stages" / f"{number:02d}").glob("[!.]*"):
            if (link := _training_of(folder)) is not None:
                return link.compute.tokens
        raise TrainingError(
            f"the model after stage {number} is gone", hint="begin the run anew in another output"
        )

    def check_free(self, *, resume: bool) -> None:
        """Refuse a folder that no run can begin in.

        Args:
            resume: Whether a run that lies there goes on.

        Raises:
            OutputError: It holds a run that is not to go on, or something else; or its tokens would
                be written into somebody's folder.
        """
        shown = printable(self.path, 200)
        self._check_tokens()
        if self.holds_a_run:
            if resume:
                return
            raise OutputError(
                f"{shown} holds a run already",
                hint=f"add {argument('resume')} to go on with it, or choose another output",
            )
        with translated(shown):
            if self.path.exists() and (not self.path.is_dir() or any(self._strangers())):
                raise OutputError(
                    f"{shown} exists and is no folder of a run", hint="choose another output"
                )

    def _check_tokens(self) -> None:
        """Refuse a link to a folder that holds anything but tokens; a study links to its own."""
        if not self.tokens.is_symlink():
            return
        with translated(printable(self.tokens, 200)):
            found = list(self.tokens.iterdir()) if self.tokens.exists() else []
        strangers = sorted(
            path.name for path in found if path.name[0] != "." and not (path / INDEX).is_file()
        )
        if strangers:
            raise OutputError(
                f"{printable(self.tokens, 200)} is a link to "
                f"{printable(self.tokens.resolve(), 200)}, which holds {printable(strangers[0])} "
                "and not tokens alone",
                hint="remove the link, or choose another output",
            )

    def begin(self) -> None:
        """Make the folder of a new run; what a run left that never saved a checkpoint is removed.

        Raises:
            OutputError: It holds a run, or something else.
        """
        self.check_free(resume=False)
        with translated(printable(self.path, 200)):
            self.path.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.path / "stages", ignore_errors=True)
            (self.path / METRICS).unlink(missing_ok=True)
            replace_text(self.path / RUN, "{}\n")

    def leave_mark(self) -> Path:
        """Write an empty file of a name that nobody has asked for yet, and return where it is."""
        mark = self.path / f".seen-{uuid4().hex}"
        with translated(printable(mark, 200)):
            mark.touch()
        return mark

    def record(self, identity: Mapping[str, Any], recipe: Recipe) -> None:
        """Write down what the run is carried out with."""
        with translated(printable(self.path, 200)):
            # In this order: a recipe beside no run is somebody else's.
            replace_text(self.path / RUN, json.dumps(identity, indent=2) + "\n")
            replace_text(self.path / RECIPE, recipe.to_yaml())

    def check(
        self,
        identity: Mapping[str, Any],
        recipe: Recipe,
        *,
        stage: int,
        stage_steps: int,
        allow_world_change: bool,
    ) -> tuple[str, ...]:
        """Compare what the run was begun with with what it is to go on with.

        Models that grew in later stages, which are others now, are removed.

        Args:
            identity: What it is to go on with.
            recipe: The recipe of that.
            stage: The stage that it stands in; later ones may be others than they were.
            stage_steps: The steps of the stage that are done.
            allow_world_change: Whether the number of processes may be another.

        Returns:
            The names of the models that were removed.

        Raises:
            TrainingError: They differ in something that the result depends on.
        """
        is_finished = self.is_finished
        own = stage
        stage = max(stage, self.last_trained)
        before = self.begun_with()
        differing = differences(before, identity, recipe)
        later: list[int] = []
        if not is_finished:
            later = [one.stage for one in differing if one.stage > stage]
            differing = [one for one in differing if one.stage <= stage]
            if own > self.last_trained and is_same_so_far(before, recipe, own, stage_steps):
                differing = [one for one in differing if one.stage < stage or not one.is_ahead]
        if allow_world_change:
            differing = [one for one in differing if not one.is_of_the_world]
        if differing:
            raise refusal(differing, self.final, is_finished=is_finished)
        return self._remove_stages_from(min(later)) if later else ()

    def begun_with(self) -> dict[str, Any]:
        """Return what the run was begun with.

        Raises:
            TrainingError: It cannot be read.
        """
        try:
            before = json.loads((self.path / RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise TrainingError(
                f"{RUN} of the run cannot be read", hint="choose another output"
            ) from error
        if not isinstance(before, dict):
            raise TrainingError(f"{RUN} of the run is damaged", hint="choose another output")
        return before

    def _strangers(self) -> Iterator[Path]:
        """Yield what lies in the folder and was not left there by a run that never began."""
        ours = {RUN, "tokens"}
        if (self.path / RUN).exists():
            ours |= {RECIPE, METRICS, "stages", "checkpoints"}
        return (p for p in self.path.iterdir() if p.name not in ours and p.name[0] != ".")

    def _stages(self) -> list[tuple[int, Path]]:
        """Return the folders of stages with their numbers."""
        found = self.path.glob("stages/*")
        return [(int(f.name), f) for f in found if f.name.isdecimal() and f.is_dir()]

    def _remove_stages_from(self, number: int) -> tuple[str, ...]:
        removed = []
        with translated(printable(self.path, 200)):
            for at, folder in self._stages():
                if at >= number:
                    removed += [
                        f"stages/{folder.name}/{path.name}" for path in folder.glob("[!.]*")
                    ]
                    shutil.rmtree(folder)
        return tuple(sorted(removed))


def _training_of(folder: Path) -> TrainingLink | None:
    """Return what a model that lies there was made by, if that is training."""
    try:
        manifest = read_manifest(folder)
    except GrowthError:
        return None
    link = None if manifest is None else manifest.link
    return link if isinstance(link, TrainingLink) else None


_TEXT, _BASE, _DATA = "text ", "base ", "data"
# Where base, tokenizer and text lie, or are called on the Hub: their bytes decide.
_NOTE = re.compile(r"(base|tokenizer)( commit)?|data\.(train|validation)\.\d+\.path")
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
            f"checkpoint {printable(name)} is of another run: {_told(found)}",
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
    said = _told(differing)
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


def _told(differing: Sequence[Difference]) -> str:
    said = "; ".join(map(str, differing[:_MOST_TOLD]))
    more = len(differing) - _MOST_TOLD
    return f"{said} and {more} more" if more > 0 else said


def run_name(recipe: Recipe) -> str:
    """Return the name of a run: that of its folder."""
    return printable(Path(recipe.output).expanduser().absolute().name, 200)
