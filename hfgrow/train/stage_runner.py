"""Stage after stage: each begins with a model folder and ends with one.

Checkpoints are saved while a stage trains, and put back where a run goes on.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import RECIPE, LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import Progress, short_count
from hfgrow.errors import TrainingError, printable
from hfgrow.growth.loading import filled_config, filled_settings
from hfgrow.growth.models import base_name
from hfgrow.growth.publish import card_of
from hfgrow.growth.recorded import kept_since
from hfgrow.growth.steps import suffix_of
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.tensors import CONFIG_NAMES
from hfgrow.train.again import portable_recipe
from hfgrow.train.checkpoints import (
    MODEL,
    OPTIMIZER,
    Checkpoint,
    flat,
    group_state,
    group_state_of,
    latest_checkpoint,
    model_tensors,
    optimizer_state,
    put_model,
    put_optimizer,
    read_optimizer,
    save_checkpoint,
)
from hfgrow.train.devices import Devices
from hfgrow.train.evaluate import evaluate_folder
from hfgrow.train.export import Target, export
from hfgrow.train.flops import arithmetic, spent_flops
from hfgrow.train.growing import Grown, Learner, carried_state, grow_stage, last_growth
from hfgrow.train.identity import check_checkpoint
from hfgrow.train.loop import Run, measuring, record_evaluation, speed_of, train_stage
from hfgrow.train.loss import router_note
from hfgrow.train.metrics import Position
from hfgrow.train.mup import multiples_of
from hfgrow.train.plateau import has_ended
from hfgrow.train.processes import StoppedError
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import Grow, Train
from hfgrow.train.run_folder import RunFolder, run_name
from hfgrow.train.stage import Stage, begin_with, make_stage

# The longest name of a stage's folder; those of many growths would grow without end.
_MAX_NAME = 100


@dataclass(slots=True, kw_only=True)
class StageRunner:
    """Runs what stages of a run are not done.

    Attributes:
        run: The run.
        output: Its folder.
        base: The model that it begins with.
        ref: Where that comes from; None for a fresh model.
        checkpoints: Its checkpoints.
        learner: Learns the maps of growths.
        folder: The model that the next stage begins with.
        growths: The growths since the last training.
    """

    run: Run
    output: RunFolder
    base: Path
    ref: ModelRef | None
    checkpoints: "Checkpoints"
    learner: Learner
    folder: Path = field(init=False)
    growths: list[Grown] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.base

    def run_all(self) -> None:
        """Run all stages, in order.

        Raises:
            GrowthError: Anything that the user can act on.
            StoppedError: A signal stopped the run; what was saved stays.
        """
        for number, stage in enumerate(self.run.recipe.stages):
            self.run.devices.heed()
            if stage.grow:
                self._grow(number, stage.grow)
            elif stage.train:
                self._train(number, stage.train)

    def _grow(self, number: int, grow: Grow) -> None:
        run, at = self.run, self.run.position
        name = self._name(number, suffix_of(grow.operator, grow.arguments))
        is_last = self._is_last(number)
        out = self.output.stage(number, name)
        done = self.output.final if is_last else out
        if number == 0 and not at.step:
            losses = evaluate_folder(
                self.folder, run.corpus.validation, run.devices, run.recipe, measuring(run)
            )
            record_evaluation(run, losses, "base")
        said = ""
        if not run.devices.main_sees(done.exists()):
            # A run that ends in growth may have been stopped between growth and its last name.
            if not run.devices.main_sees(out.exists()):
                self._write_grown(grow, out, self._dtype(is_last))
            if is_last:
                made_by = portable_recipe(run.recipe, self.ref)
                run.devices.on_main(lambda: _move(out, done, made_by))
            said = f"Grown: {printable(name)}"
        if number > at.stage or not at.step:
            # The record was cut where training stands.
            line = {"step": at.step, "stage": number, "tokens": at.tokens, "growth": name}
            run.metrics.write(line, said=said, always=True)
        self.growths.append(Grown(grow, self.folder, done))
        self.folder = done

    def _write_grown(self, grow: Grow, out: Path, dtype: str) -> None:
        base, asked = self.folder, self.run.recipe.base
        # By its name where it has one, so that the lineage says where it comes from.
        is_named = base == self.base and isinstance(asked, str)
        model = str(asked if is_named else base.absolute())
        self.run.devices.on_main(lambda: grow_stage(grow, model, base, out, dtype, self.learner))

    def _train(self, number: int, train: Train) -> None:
        run, at, recipe = self.run, self.run.position, self.run.recipe
        is_last = self._is_last(number)
        name = self._name(number, "plateau" if train.until else short_count(train.tokens))
        out = self.output.final if is_last else self.output.stage(number, name)
        at.begin_stage(number)
        if self._is_trained(number, train, out):
            self.folder, self.growths = out, []
            return
        growth = last_growth(self.folder)
        stage = make_stage(
            recipe,
            train,
            self.folder,
            run.devices,
            layer_map=None if growth is None else growth.layer_sources,
            kept=kept_since(read(LocalFolder(self.folder)).config, growth)
            if train.looks_at_growth
            else None,
            masked_by=growth if train.mask_ramp is not None else None,
            multiples=multiples_of(read(LocalFolder(self.base)), read(LocalFolder(self.folder)))
            if train.parametrization
            else None,
        )
        self.checkpoints.restore(stage, at, self.growths)
        trained = [
            stored
            for name, parameter in stage.model.named_parameters()
            if parameter.requires_grad
            for stored in stage.names.of(name)
        ]
        settings, length = filled_config(stage.plan.config), recipe.data.sequence_length
        flops = spent_flops(settings, length, trained)
        if note := router_note(filled_settings(stage.plan)):
            run.metrics.progress.say(f"  {note}")
        stopped = train_stage(run, stage, speed_of(flops, run.devices))
        if stopped:
            raise StoppedError(stopped, f"Stopped at step {at.step:,}; a checkpoint is saved")
        target = Target(
            folder=out,
            name=run_name(recipe) if is_last else name,
            dtype=self._dtype(is_last),
            base=self.folder,
            base_record=self._record(self.folder),
            run_folder=self.output.path,
            recipe=portable_recipe(recipe, self.ref) if is_last else None,
        )
        export(run, stage, target, arithmetic(settings, length), flops)
        self.folder, self.growths = out, []

    def _is_trained(self, number: int, train: Train, out: Path) -> bool:
        """Say whether a stage is done.

        Raises:
            TrainingError: Its model is gone, or something else lies in its place.
        """
        at = self.run.position
        is_passed = number < at.stage
        is_there = self.run.devices.main_sees(out.exists())
        if is_passed and not is_there:
            raise TrainingError(
                f"the model after stage {number} is gone: {printable(out, 200)}",
                hint="begin the run anew in another output",
            )
        if is_there and not is_passed and not has_ended(self.run.recipe, train, at):
            raise TrainingError(
                f"{printable(out, 200)} is no model that this run has trained",
                hint="move it somewhere else",
            )
        return is_there

    def _is_last(self, number: int) -> bool:
        return number == len(self.run.recipe.stages) - 1

    def _dtype(self, is_last: bool) -> str:
        if not is_last:
            return "float32"
        if self.run.recipe.dtype is not None:
            return self.run.recipe.dtype
        plan = read(LocalFolder(self.base))
        counts = Counter(tensor.dtype for tensor in plan.tensors.values())
        return CONFIG_NAMES[counts.most_common(1)[0][0]]

    def _name(self, number: int, suffix: str) -> str:
        """Return the name of the model after a stage: its base's, and what the stage does."""
        name = f"{self._record(self.folder)['name']}-{suffix}"
        if len(name) <= _MAX_NAME:
            return name
        return f"{self._record(self.base)['name'][:_MAX_NAME]}-stage-{number}"

    def _record(self, folder: Path) -> dict[str, Any]:
        """Return how a lineage names a model that a stage begins with."""
        if folder != self.base:
            return {"name": folder.name}
        if self.ref is None:
            return {"name": "base"}
        return {
            "name": base_name(self.ref),
            "repo_id": self.ref.repo_id,
            "revision": self.ref.revision,
        }


def _move(out: Path, final: Path, recipe: str) -> None:
    with translated(printable(final, 200)):
        replace_text(out / RECIPE, recipe)
        manifest = manifest_of(LocalFolder(out))
        for name, text in card_of(out, manifest, None).items():
            replace_text(out / name, text)
        out.rename(final)
        shutil.rmtree(out.parent, ignore_errors=True)


class Checkpoints:
    """Saves the state of a run, the newest `keep` times, and puts it back.

    Attributes:
        identity: What the run is, by key; each checkpoint says it.
    """

    def __init__(
        self, folder: RunFolder, devices: Devices, progress: Progress, *, keep: int
    ) -> None:
        self._folder, self._devices, self._progress = folder, devices, progress
        self._keep = keep
        self._latest: Checkpoint | None = None
        self.identity: dict[str, Any] = {}

    def check(self, recipe: Recipe) -> None:
        """Refuse the checkpoint that gave `position` if another run has saved it.

        Raises:
            TrainingError: One has.
        """
        # Of an older hfgrow it does not say whose it is.
        if self._latest is None or not isinstance(before := self._latest.state.get("run"), dict):
            return
        at = Position.of_json(self._latest.state.get("position"))
        check_checkpoint(
            self._latest.folder.name,
            before,
            self.identity,
            recipe,
            stage=at.stage,
            stage_steps=at.stage_step,
        )

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; one process has looked at every byte."""
        if self._latest is None:
            self._latest = self._devices.shared(
                lambda: latest_checkpoint(self._folder.checkpoints, self._progress)
            )
        return self._latest

    def position(self) -> Position:
        """Return where the newest checkpoint stands, or the begin of a run."""
        checkpoint = self.latest()
        if checkpoint is None:
            return Position()
        return Position.of_json(checkpoint.state.get("position"))

    def save(self, stage: Stage, at: Position) -> None:
        """Save where a stage stands.

        Raises:
            OutputError: It cannot be written; older checkpoints are as they were.
        """
        is_main = self._devices.is_main
        files = {
            MODEL: model_tensors(stage.model, keep=is_main),
            OPTIMIZER: flat(optimizer_state(stage.model, stage.optimizer, keep=is_main)),
        }
        state = {
            "position": at.to_json(),
            "groups": group_state(stage.optimizer),
            "run": self.identity,
        }
        self._devices.on_main(
            lambda: save_checkpoint(
                self._folder.checkpoints, at.step, files, state, keep=self._keep
            )
        )
        self._latest = None

    def restore(self, stage: Stage, at: Position, growths: Sequence[Grown]) -> None:
        """Put a stage where the run stands.

        Args:
            stage: The stage, as its model folder left it.
            at: Where the run stands: inside the stage, or just before it.
            growths: The growths since the last training.

        Raises:
            TrainingError: What it needs is not there.
        """
        is_carried = any(growth.grow.optimizer_state != "reset" for growth in growths)
        if not at.stage_step and not is_carried:
            return
        checkpoint = self.latest()
        if checkpoint is None or self.position().step != at.step:
            raise TrainingError(
                f"the checkpoint of step {at.step} is gone",
                hint="begin the run anew in another output",
            )
        if at.stage_step:
            put_model(stage.model, checkpoint.tensors(MODEL))
            groups = group_state_of(checkpoint)
            put_optimizer(stage.model, stage.optimizer, read_optimizer(checkpoint), groups)
        else:
            state, groups_kept = carried_state(growths, checkpoint)
            begin_with(stage, state, groups_kept)
