"""A run: the stages of a recipe in order, each from a folder to a folder.

Growth happens on disk between stages, so every stage can be looked at, resumed and grown again. The
main process writes and speaks; what it cannot do, no process does.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.dtypes import CONFIG_NAMES
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import translated
from hfgrow.errors import TrainingError, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.resolve import ModelRef
from hfgrow.naming import suffix_of
from hfgrow.numbers import short_count
from hfgrow.progress import Progress
from hfgrow.record import describe
from hfgrow.source import base_name
from hfgrow.train.data.batches import BatchPlan
from hfgrow.train.devices import Devices
from hfgrow.train.evaluate import evaluate_folder
from hfgrow.train.export import Target, export
from hfgrow.train.flops import arithmetic, spent_flops
from hfgrow.train.growing import Grown, grow_stage, last_growth
from hfgrow.train.keeping import Keeper
from hfgrow.train.learning import Learner
from hfgrow.train.loop import Run, record_evaluation, train_stage
from hfgrow.train.metrics import Metrics
from hfgrow.train.position import Position
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_stages import Grow, Train
from hfgrow.train.run_folder import RunFolder, base_identity
from hfgrow.train.speed import speed_of
from hfgrow.train.stage import make_stage
from hfgrow.train.stop import StoppedError, StopRequest
from hfgrow.train.texts import open_texts

# The longest name of a stage's folder; those of many growths would grow without end.
_MAX_NAME = 100


@dataclass(slots=True)
class _Walk:
    """Where the walk over the stages is.

    Attributes:
        folder: The model that the next stage begins with.
        growths: The growths since the last training.
    """

    folder: Path
    growths: list[Grown] = field(default_factory=list)


class Runner:
    """Carries a recipe out.

    Args:
        recipe: The recipe.
        base: The folder of the model to begin with.
        ref: Where that comes from; None for a fresh model.
        tokenizer: A model folder whose tokenizer is used.
        devices: The processes.
        progress: Told how it goes on, in the main process.
        client: The connection to the Hub, for text that lies there.
    """

    def __init__(
        self,
        recipe: Recipe,
        base: Path,
        ref: ModelRef | None,
        tokenizer: Path,
        devices: Devices,
        progress: Progress,
        client: HubClient,
    ) -> None:
        self._recipe, self._base, self._ref, self._tokenizer = recipe, base, ref, tokenizer
        self._devices, self._progress, self._client = devices, progress, client
        self._folder = RunFolder(Path(recipe.output).expanduser())
        self._keeper = Keeper(self._folder, devices, progress, keep=recipe.checkpoint.keep)

    def run(self, *, resume: bool, allow_world_change: bool) -> Path:
        """Run all stages that are not done.

        Args:
            resume: Whether a run that lies in the output goes on.
            allow_world_change: Whether it may go on with another number of processes.

        Returns:
            The folder of the finished model.

        Raises:
            GrowthError: Anything that the user can act on.
            StoppedError: A signal stopped the run, and its checkpoint is saved.
        """
        recipe, devices = self._recipe, self._devices
        devices.check_same("recipe", recipe.identity())
        corpus, order = open_texts(
            recipe,
            self._base,
            self._tokenizer,
            self._folder.tokens,
            devices,
            self._client,
            self._progress,
        )
        position, checkpoint = Position(), self._keeper.latest()
        if checkpoint is not None:
            position = Position.of_json(checkpoint.state.get("position"))
        own = dict(recipe.identity()) | {"data": order.fingerprint}
        is_finished = devices.told(self._folder.final.exists())
        devices.on_main(lambda: self._take_up(own, position.stage, resume, allow_world_change))
        if is_finished:
            self._progress.say("The run is finished already")
            return self._folder.final
        if checkpoint is not None:
            self._progress.say(f"Going on from step {position.step:,}, {position.tokens:,} tokens")
        run = Run(
            recipe=recipe,
            devices=devices,
            corpus=corpus,
            order=order,
            plan=BatchPlan.of_tokens(
                recipe.batch_tokens,
                sequence_length=recipe.data.sequence_length,
                micro_batch_size=recipe.micro_batch_size,
                world_size=devices.num_processes,
            ),
            metrics=Metrics(self._folder.path, recipe, devices, self._progress, begin=position),
            stop=StopRequest(),
            position=position,
            save=lambda stage: self._keeper.save(stage, position),
            base_sizes=describe(read(LocalFolder(self._base)), "base", files={}),
        )
        self._run = run
        self._learner = Learner(recipe, corpus, devices.device, self._folder.maps, self._progress)
        walk = _Walk(self._base)
        for number, stage in enumerate(recipe.stages):
            if stage.grow:
                self._grow(walk, number, stage.grow)
            elif stage.train:
                self._train(walk, number, stage.train)
        run.metrics.close()
        return self._folder.final

    def _take_up(
        self, own: dict[str, Any], stage: int, resume: bool, allow_world_change: bool
    ) -> None:
        identity = base_identity(self._base) | own
        if resume:
            removed = self._folder.check(
                identity, stage=stage, allow_world_change=allow_world_change
            )
            if removed:
                self._progress.say(f"The recipe has changed: removed {', '.join(removed)}")
        if not self._folder.final.exists():
            self._folder.record(identity, self._recipe)

    def _grow(self, walk: _Walk, number: int, grow: Grow) -> None:
        name = self._name(walk.folder, number, suffix_of(grow.operator, grow.arguments))
        is_last = number == len(self._recipe.stages) - 1
        out = self._folder.stage(number, name)
        done = self._folder.final if is_last else out
        if number == 0 and not self._run.position.evaluations:
            found = evaluate_folder(
                walk.folder, self._run.corpus.validation, self._devices, self._recipe
            )
            record_evaluation(self._run, found, "base")
        if not self._devices.told(done.exists()):
            dtype = self._final_dtype() if is_last else "float32"
            model = str(walk.folder.absolute())
            if walk.folder == self._base and isinstance(self._recipe.base, str):
                # By its name, so that the lineage says where it comes from.
                model = self._recipe.base
            # A run that ends in growth may have been stopped between growth and its last name.
            if not self._devices.told(out.exists()):
                self._devices.on_main(
                    lambda: grow_stage(grow, model, walk.folder, out, dtype, self._learner)
                )
            if is_last:
                self._devices.on_main(lambda: self._move(out, done))
            said = f"Grown: {printable(name)}"
            at = self._run.position
            line = {"step": at.step, "stage": number, "tokens": at.tokens, "growth": name}
            self._run.metrics.write(line, said=said, always=True)
        walk.growths.append(Grown(grow, walk.folder, done))
        walk.folder = done

    def _train(self, walk: _Walk, number: int, train: Train) -> None:
        at, recipe = self._run.position, self._recipe
        is_last = number == len(recipe.stages) - 1
        name = self._name(walk.folder, number, short_count(train.tokens))
        out = self._folder.final if is_last else self._folder.stage(number, name)
        is_done = self._devices.told(out.exists())
        if number < at.stage and not is_done:
            raise TrainingError(
                f"the model after stage {number} is gone: {printable(out, 200)}",
                hint="begin the run anew in another output",
            )
        if is_done:
            self._pass_over(number, train)
            walk.folder, walk.growths = out, []
            return
        if number > at.stage:
            at.stage, at.stage_step, at.stage_seconds = number, 0, 0.0
        growth = last_growth(walk.folder)
        stage = make_stage(
            recipe,
            train,
            walk.folder,
            self._devices,
            layer_map=None if growth is None else growth.layer_sources,
            masked_by=growth if train.mask_ramp is not None else None,
        )
        self._keeper.restore(stage, at, walk.growths)
        trained = [name for name, p in stage.model.named_parameters() if p.requires_grad]
        settings, length = stage.model.config.to_dict(), recipe.data.sequence_length
        flops = spent_flops(settings, length, trained)
        stopped = train_stage(self._run, stage, speed_of(flops, self._devices))
        if stopped:
            raise StoppedError(stopped, f"Stopped at step {at.step:,}; a checkpoint is saved")
        target = Target(
            folder=out,
            name=Path(recipe.output).name if is_last else name,
            dtype=self._final_dtype() if is_last else "float32",
            base=walk.folder,
            base_record=self._base_record(walk.folder),
            run_folder=self._folder.path,
        )
        export(self._run, stage, target, arithmetic(settings, length), flops)
        walk.folder, walk.growths = out, []

    def _pass_over(self, number: int, train: Train) -> None:
        """Stand at the end of a stage whose model is there, though its last checkpoint is not."""
        at, run = self._run.position, self._run
        if number > at.stage:
            at.stage, at.stage_step, at.stage_seconds = number, 0, 0.0
        left = train.num_steps(run.recipe.batch_tokens) - at.stage_step
        if number < at.stage or not left:
            return
        following = run.recipe.stages[number + 1 : number + 2]
        if any(stage.grow and stage.grow.optimizer_state != "reset" for stage in following):
            raise TrainingError(
                f"the last checkpoint of stage {number} is gone or damaged, and growth wants its "
                "optimizer's state",
                hint=f"--set stages.{number + 1}.grow.optimizer_state=reset in a new output",
            )
        at.stage_step, at.step = at.stage_step + left, at.step + left
        at.samples += left * run.plan.num_samples
        at.tokens += left * run.recipe.batch_tokens

    def _final_dtype(self) -> str:
        if self._recipe.dtype is not None:
            return self._recipe.dtype
        plan = read(LocalFolder(self._base))
        counts = Counter(tensor.dtype for tensor in plan.tensors.values())
        return CONFIG_NAMES[counts.most_common(1)[0][0]]

    def _name(self, folder: Path, number: int, suffix: str) -> str:
        name = f"{self._base_record(folder)['name']}-{suffix}"
        if len(name) > _MAX_NAME:
            name = f"{self._base_record(self._base)['name'][:_MAX_NAME]}-stage-{number}"
        return name

    def _base_record(self, folder: Path) -> dict[str, Any]:
        if folder != self._base:
            return {"name": folder.name}
        if self._ref is None:
            return {"name": "base"}
        ref = self._ref
        return {"name": base_name(ref), "repo_id": ref.repo_id, "revision": ref.revision}

    def _move(self, out: Path, final: Path) -> None:
        with translated(printable(final, 200)):
            out.rename(final)
            shutil.rmtree(out.parent, ignore_errors=True)
