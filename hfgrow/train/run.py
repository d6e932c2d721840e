"""A run: what it goes on from, and the walk over its stages, each from a folder to a folder.

Growth happens on disk between stages, so every stage can be looked at, resumed and grown again. The
main process writes and speaks; what it cannot do, no process does.

The push of a run's model: asked about before any work, done in the end.

One process of a run, from the recipe to the finished and pushed model.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import MANIFEST, LocalFolder
from hfgrow.checkpoint.locks import held
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_apart
from hfgrow.console import Progress, Silent
from hfgrow.data.batches import BatchPlan
from hfgrow.errors import ModelError, TrainingError
from hfgrow.growth.loading import TRAINING, require
from hfgrow.growth.models import files_of, local_folder, locate
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.manifest import Manifest, model_record
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.plan import LayerSource
from hfgrow.train.devices import Devices, lost, open_devices
from hfgrow.train.dry_run import foresee
from hfgrow.train.growing import Learner, last_growth
from hfgrow.train.loop import Run
from hfgrow.train.metrics import Metrics, Position, recorded_evaluations
from hfgrow.train.recipe.parts import FreshModel
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.speech import KEYS
from hfgrow.train.run_folder import RunFolder, base_identity, run_name, text_identity
from hfgrow.train.text import open_texts
from hfgrow.train.walk import Keeper, Walk
from hfgrow.train.weights import write_fresh


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


def ask_for_push(recipe: Recipe, base: ModelRef | None, client: HubClient) -> None:
    """Ask before any work whether the model of a run may be pushed.

    Args:
        recipe: The recipe.
        base: The model that it begins with; None for a fresh one.
        client: The connection to the Hub.

    Raises:
        GrowthError: The Hub refuses or does not answer, or the name is the base's own.
    """
    if recipe.push is None:
        return
    from hfgrow.growth.publish import visible_as
    from hfgrow.hub.preflight import preflight

    name = run_name(recipe)
    ref = ModelRef(name)
    if base is not None:
        seen = visible_as(base.label, _manifest(base, client), client)
        ref = replace(
            seen,
            repo_id=base.repo_id,
            private=seen.private or base.private,
            gated=seen.gated or base.gated,
        )
    preflight(
        ref,
        recipe.push.repo,
        name,
        client,
        private=recipe.push.private,
        exist_ok=False,
        create_pr=False,
    )


def push_result(
    recipe: Recipe, final: Path, client: HubClient, progress: Progress
) -> dict[str, Any]:
    """Push the finished model where the recipe says so.

    Returns:
        Its `url`, or nothing.

    Raises:
        GrowthError: The Hub refuses or does not answer.
    """
    if recipe.push is None:
        return {}
    from hfgrow.growth.publish import publish

    # By the name that was asked about: a last stage of growth has another one of its own.
    repo = recipe.push.repo or run_name(recipe)
    pushed = publish(final, repo, client, progress, private=recipe.push.private)
    progress.say(f"Pushed: {pushed.url}")
    return {"url": pushed.url}


def _manifest(base: ModelRef, client: HubClient) -> Manifest | None:
    files = files_of(base, client)
    try:
        return manifest_of(files) if MANIFEST in files.names() else None
    except ModelError:
        # It is no base's lineage that its growth or training would go on with.
        return None


_BUSY = "wait for it, or choose another output"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process was asked for.

    Attributes:
        recipe: The recipe.
        resume: Whether a run that lies in the output goes on.
        on_cpu: Whether accelerators are left alone.
        allow_world_change: Whether it may go on with another number of processes.
        quiet: Whether nothing is said.
        token: The Hub token; None takes the environment's or the logged-in one.
    """

    recipe: Recipe
    resume: bool = False
    on_cpu: bool = False
    allow_world_change: bool = False
    quiet: bool = False
    token: str | None = None


class _Stderr(Silent):
    """Says lines on stderr."""

    def say(self, text: str) -> None:
        print(KEYS.spell(text), file=sys.stderr, flush=True)


def carry_out(job: Job) -> dict[str, Any]:
    """Run a recipe in this process, together with the others of the run.

    Returns:
        `folder` of the finished model, and `url` if it was pushed.

    Raises:
        GrowthError: Anything that the user can act on.
        StoppedError: A signal stopped the run; what was saved stays.
    """
    require("training", *TRAINING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    devices = open_devices(job.recipe, on_cpu=job.on_cpu)
    holding = ExitStack()
    try:
        with devices.stop.listening():
            return _carried_out(job, devices, holding)
    except RuntimeError as error:
        if devices.num_processes > 1 and _is_lost(error):
            raise lost(error) from error
        raise
    finally:
        holding.close()
        # One of several that fails stays until it has said so: once it leaves, they all end.
        if devices.num_processes == 1 or sys.exc_info()[0] is None:
            devices.close()


def _carried_out(job: Job, devices: Devices, holding: ExitStack) -> dict[str, Any]:
    recipe = job.recipe
    progress: Progress = _Stderr() if devices.is_main and not job.quiet else Silent()
    client = HubClient(token=job.token)
    folder = RunFolder(Path(recipe.output).expanduser())
    refs = _located(recipe, devices, progress, client)
    for ref in refs:
        if ref is not None and ref.path is not None:
            check_apart(folder.path, ref.path)
    devices.on_main(lambda: holding.enter_context(held(folder.path, hint=_BUSY)))
    resume = devices.told(job.resume and folder.holds_a_run)
    if job.resume and not resume:
        progress.say("Note: there is no run to go on with; it begins")
    if not resume:
        devices.on_main(folder.begin)
    _check_output(folder, devices)
    devices.on_main(lambda: ask_for_push(recipe, refs[0], client))
    base, tokenizer = _models(recipe, refs, folder, devices, progress, client)
    devices.on_main(lambda: list(foresee(recipe, read(LocalFolder(base)), _layer_map(base))))
    runner = Runner(recipe, base, refs[0], tokenizer, devices, progress, client)
    final = runner.run(resume=resume, allow_world_change=job.allow_world_change)
    pushed = devices.on_main(lambda: push_result(recipe, final, client, progress))
    return {"folder": str(final), **(pushed or {})}


def _check_output(folder: RunFolder, devices: Devices) -> None:
    """Make sure that every process sees what the main one writes."""
    mark = devices.shared(folder.leave_mark)
    try:
        devices.check_same("output", mark.exists())
    finally:
        if devices.is_main:
            mark.unlink(missing_ok=True)


def _located(
    recipe: Recipe, devices: Devices, progress: Progress, client: HubClient
) -> list[ModelRef | None]:
    """Return what base and tokenizer stand for; None for what has no name."""
    names = (recipe.base, recipe.tokenizer)
    # One process asks, so that all of them read the same commit.
    return devices.shared(
        lambda: [
            locate(name, None, client, progress) if isinstance(name, str) else None
            for name in names
        ]
    )


def _models(
    recipe: Recipe,
    refs: Sequence[ModelRef | None],
    folder: RunFolder,
    devices: Devices,
    progress: Progress,
    client: HubClient,
) -> tuple[Path, Path]:
    """Return the base and the folder of the tokenizer."""

    def fetch(teller: Progress) -> list[Path | None]:
        return [local_folder(ref, client, teller) if ref else None for ref in refs]

    # The main process downloads; the others find what it has.
    devices.on_main(lambda: fetch(progress))
    base, tokenizer = fetch(Silent())
    if isinstance(recipe.base, FreshModel):
        fresh, vocabulary = recipe.base, tokenizer
        assert vocabulary is not None
        if not devices.told(folder.fresh.exists()):
            devices.on_main(lambda: write_fresh(fresh, vocabulary, recipe.seed, folder.fresh))
        base = folder.fresh
    assert base is not None
    sizes = {name: file.nbytes for name, file in read(LocalFolder(base)).files.items()}
    devices.check_same("base", sizes)
    return base, tokenizer or base


def _layer_map(base: Path) -> tuple[LayerSource, ...] | None:
    growth = last_growth(base)
    return None if growth is None else growth.layer_sources


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("connection", "timed out", "timeout", "gloo", "nccl"))
