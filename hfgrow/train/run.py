"""A run: what it goes on from, and the walk over its stages, each from a folder to a folder.

Growth happens on disk between stages, so every stage can be looked at, resumed and grown again. The
main process writes and speaks; what it cannot do, no process does.
"""

from itertools import takewhile
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Progress
from hfgrow.errors import TrainingError
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.manifest import model_record
from hfgrow.train.data.batches import BatchPlan
from hfgrow.train.devices import Devices
from hfgrow.train.keeping import Keeper
from hfgrow.train.learning import Learner
from hfgrow.train.loop import Run
from hfgrow.train.metrics import Metrics, recorded_evaluations
from hfgrow.train.position import Position
from hfgrow.train.recipe import Recipe
from hfgrow.train.run_folder import RunFolder
from hfgrow.train.same_run import base_identity, text_identity
from hfgrow.train.texts import open_texts
from hfgrow.train.walk import Walk


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
            StoppedError: A signal stopped the run; what was saved stays.
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
        own = dict(recipe.identity()) | text_identity(corpus.train, order.fingerprint)
        is_finished = devices.shared(lambda: self._folder.is_finished)
        devices.on_main(lambda: self._take_up(own, position, resume, allow_world_change))
        if is_finished:
            self._progress.say("The run is finished already")
            return self._folder.final
        plan = BatchPlan.of_tokens(
            recipe.batch_tokens,
            sequence_length=recipe.data.sequence_length,
            micro_batch_size=recipe.micro_batch_size,
            world_size=devices.num_processes,
        )
        self._pass_over(position, plan)
        if position.step:
            self._progress.say(f"Going on from step {position.step:,}, {position.tokens:,} tokens")
        run = Run(
            recipe=recipe,
            devices=devices,
            corpus=corpus,
            order=order,
            plan=plan,
            metrics=Metrics(self._folder.path, recipe, devices, self._progress, begin=position),
            position=position,
            save=lambda stage: self._keeper.save(stage, position),
            base_sizes=model_record(read(LocalFolder(self._base)), "base", files={}),
        )
        learner = Learner(recipe, corpus, devices.device, self._folder.maps, self._progress)
        walk = Walk(
            run=run,
            output=self._folder,
            base=self._base,
            ref=self._ref,
            keeper=self._keeper,
            learner=learner,
        )
        try:
            walk.to_the_end()
        finally:
            run.metrics.close()
        return self._folder.final

    def _take_up(
        self, own: dict[str, Any], at: Position, resume: bool, allow_world_change: bool
    ) -> None:
        identity = base_identity(self._base) | own
        if resume:
            removed = self._folder.check(
                identity,
                self._recipe,
                stage=at.stage,
                stage_steps=at.stage_step,
                allow_world_change=allow_world_change,
            )
            if removed:
                self._progress.say(f"The recipe has changed: removed {', '.join(removed)}")
        if not self._folder.is_finished:
            self._folder.record(identity, self._recipe)

    def _pass_over(self, at: Position, plan: BatchPlan) -> None:
        """Stand behind the stages whose models are there, though their checkpoints are not."""
        recipe = self._recipe
        last = self._devices.shared(lambda: self._folder.last_trained)
        passed = 0
        for number in range(at.stage, last + 1):
            if (train := recipe.stages[number].train) is None:
                continue
            at.begin_stage(number)
            passed = train.num_steps(recipe.batch_tokens) - at.stage_step
            at.advance(passed, samples=plan.num_samples, tokens=recipe.batch_tokens)
        if not passed:
            return
        following = takewhile(lambda stage: stage.grow, recipe.stages[last + 1 :])
        for number, stage in enumerate(following, last + 1):
            if stage.grow and stage.grow.optimizer_state != "reset":
                raise TrainingError(
                    f"the last checkpoint of stage {last} is gone or damaged, and growth wants its "
                    "optimizer's state",
                    hint=f"--set stages.{number}.grow.optimizer_state=reset in a new output",
                )
        at.evaluations = self._devices.shared(lambda: recorded_evaluations(self._folder.path, at))
