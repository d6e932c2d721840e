"""A run, from the recipe to the finished and pushed model: start here.

`run_recipe` is one process of it. Growth happens on disk between stages, so every stage can be
looked at, resumed and grown again. The main process writes and speaks; what it cannot do, no
process does.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import RUN, LocalFolder
from hfgrow.checkpoint.locks import held
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_apart
from hfgrow.console import Progress, SaidBar, Silent, for_terminal
from hfgrow.data.batches import BatchPlan
from hfgrow.data.corpus import Corpus
from hfgrow.data.order import BlockOrder
from hfgrow.errors import (
    PYTHON,
    GrowthError,
    OutputError,
    Speech,
    TrainingError,
    argument,
    printable,
    require,
)
from hfgrow.growth.loading import TRAINING, filled_config
from hfgrow.growth.models import local_folder, locate, recorded
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.manifest import Model, model_record
from hfgrow.plan.plan import GrowthPlan
from hfgrow.train.cadence import Cadence, never_saved
from hfgrow.train.devices import Devices, world_of
from hfgrow.train.estimate import others_at_work, threads_advice
from hfgrow.train.flops import arithmetic
from hfgrow.train.growing import Learner, last_growth
from hfgrow.train.identity import base_identity, is_note, text_identity
from hfgrow.train.initial_weights import write_fresh
from hfgrow.train.loop import Run
from hfgrow.train.metrics import Metrics, Position, read_metrics, recorded_evaluations
from hfgrow.train.planned_stages import plan_stages
from hfgrow.train.pushing import check_push, push_model
from hfgrow.train.recipe.parts import FreshModel
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.speech import keys
from hfgrow.train.run_folder import RunFolder
from hfgrow.train.stage_runner import Checkpoints, StageRunner
from hfgrow.train.text import open_texts


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
        front: How what is said writes what was asked for, as `keys` takes it.
    """

    recipe: Recipe
    resume: bool = False
    on_cpu: bool = False
    allow_world_change: bool = False
    quiet: bool = False
    token: str | None = None
    front: Speech = PYTHON


def run_recipe(job: Job) -> dict[str, Any]:
    """Run a recipe in this process, together with the others of the run.

    Returns:
        `folder` of the finished model, and `url` if it was pushed.

    Raises:
        GrowthError: Anything that the user can act on.
        StoppedError: A signal stopped the run; what was saved stays.
    """
    require("training", *TRAINING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    recipe = job.recipe
    with (
        world_of(recipe, on_cpu=job.on_cpu) as devices,
        ExitStack() as lock,
        devices.stop.listening(),
    ):
        setup = Setup.of(job, devices)
        folder, client, progress = setup.folder, setup.client, setup.progress
        base_ref, tokenizer_ref = _find_models(setup, resume=job.resume)
        resume = _claim_folder(setup, (base_ref, tokenizer_ref), lock, resume=job.resume)
        lock.enter_context(_told_if_removed(folder))
        devices.on_main(lambda: check_push(recipe, base_ref, client))

        base, tokenizer = _fetch_models(setup, base_ref, tokenizer_ref)
        devices.on_main(lambda: _plan_all_stages(recipe, base))
        devices.check_same("recipe", recipe.identity())
        corpus, order = open_texts(
            recipe, base, tokenizer, folder.tokens, devices, client, progress, resume=resume
        )

        checkpoints = Checkpoints(folder, devices, progress, keep=recipe.checkpoint.keep)
        position = checkpoints.position()
        identity = dict(recipe.identity()) | text_identity(corpus.train, order.fingerprint)
        identity |= devices.shared(lambda: base_identity(base, progress))
        checkpoints.identity = {key: identity[key] for key in identity if not is_note(key)}
        commits = {"base": base_ref, "tokenizer": tokenizer_ref}
        identity |= {
            f"{key} commit": [ref.repo_id, ref.revision]
            for key, ref in commits.items()
            if ref is not None and ref.repo_id is not None
        }
        is_finished = devices.shared(lambda: folder.is_finished)
        devices.on_main(
            lambda: _record_identity(
                setup,
                identity,
                checkpoints,
                position,
                resume=resume,
                allow_world_change=job.allow_world_change,
            )
        )
        if is_finished:
            progress.say("The run is finished already")
        else:
            _run_stages(setup, base, base_ref, corpus, order, checkpoints, position)
        pushed = devices.on_main(lambda: push_model(recipe, folder.final, client, progress))
        return {"folder": str(folder.final), **(pushed or {})}


@contextmanager
def _told_if_removed(folder: RunFolder) -> Iterator[None]:
    """Say of whatever fails in the block that the folder of the run is gone, if it is."""
    record = folder.path / RUN
    was_there = record.is_file()
    try:
        yield
    except (OSError, GrowthError) as error:
        # Parts of it are made again by whatever writes next.
        if record.is_file() or not was_there:
            raise
        raise OutputError(
            f"{printable(folder.path, 200)}, the folder of the run, was removed while it ran",
            hint="nothing that was trained is left; begin the run anew",
        ) from error


class _Stderr:
    """Says lines on stderr."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        line = self._speech.spell(f"{text}")
        # What a name stands for is found out several times, and said once.
        if " -> " in line and line in self._said:
            return
        self._said.add(line)
        print(for_terminal(line, sys.stderr), file=sys.stderr, flush=True)

    def bytes(self, what: str, total: int) -> SaidBar:
        return SaidBar(self, what, total)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run works with from its first line to its last.

    Attributes:
        recipe: The recipe.
        devices: The processes.
        folder: The folder of the run.
        client: The connection to the Hub, for models and text that lie there.
        progress: Told how it goes on, in the main process.
    """

    recipe: Recipe
    devices: Devices
    folder: RunFolder
    client: HubClient
    progress: Progress

    @classmethod
    def of(cls, job: Job, devices: Devices) -> "Setup":
        """Return what a process of a job works with."""
        return cls(
            recipe=job.recipe,
            devices=devices,
            folder=RunFolder(Path(job.recipe.output).expanduser()),
            client=HubClient(token=job.token),
            progress=_Stderr(keys(job.front)) if devices.is_main and not job.quiet else Silent(),
        )


def _find_models(setup: Setup, *, resume: bool) -> tuple[ModelRef | None, ModelRef | None]:
    """Return what base and tokenizer stand for, and None for what has no name.

    Of a run that goes on they are of the commits that it began with.
    """
    recipe, folder = setup.recipe, setup.folder
    goes_on = resume and folder.holds_a_run

    def found(key: str, name: object) -> ModelRef | None:
        if not isinstance(name, str):
            return None
        before = folder.begun_with() if goes_on else {}
        match before.get(f"{key} commit"):
            case [str(repo_id), str(revision)] if before.get(key) == name:
                setup.progress.say(f"{printable(name)} -> {repo_id} @ {revision[:12]}, as it began")
                return recorded(repo_id, revision, setup.client)
        return locate(name, None, setup.client, setup.progress)

    # One process asks, so that all of them read the same commit.
    return setup.devices.shared(
        lambda: (found("base", recipe.base), found("tokenizer", recipe.tokenizer)),
    )


_BUSY = "wait for it, or choose another output"


def _claim_folder(
    setup: Setup, models: tuple[ModelRef | None, ...], lock: ExitStack, *, resume: bool
) -> bool:
    """Lock the folder of the run, and make it unless a run in it goes on; return whether one does.

    Raises:
        GrowthError: It holds something else, or another process holds it, or not all see it.
    """
    devices, folder = setup.devices, setup.folder
    for ref in models:
        if ref is not None and ref.path is not None:
            check_apart(folder.path, ref.path)
    devices.on_main(lambda: lock.enter_context(held(folder.path, hint=_BUSY)))
    goes_on = devices.main_sees(resume and folder.holds_a_run)
    if not goes_on:
        _tell_what_is_lost(setup, resume=resume)
        devices.on_main(folder.begin)
    # Every process must see what the main one writes.
    mark = devices.shared(folder.leave_mark)
    try:
        devices.check_same("output", mark.exists())
    finally:
        if devices.is_main:
            mark.unlink(missing_ok=True)
    return goes_on


def _tell_what_is_lost(setup: Setup, *, resume: bool) -> None:
    """Say that a run begins where it was to go on, or where an older one saved nothing."""
    folder = setup.folder
    if not setup.devices.is_main or folder.holds_a_run:
        return
    lost = never_saved(read_metrics(folder.path), 0) if folder.holds_a_record else 0
    if lost:
        steps = f"{lost:,} step{'' if lost == 1 else 's'}"
        setup.progress.say(
            f"Note: {steps} were trained here and never saved, since no checkpoint was due; "
            "the run begins anew"
        )
    elif resume:
        setup.progress.say("Note: there is no run to go on with; it begins")


def _fetch_models(
    setup: Setup, base_ref: ModelRef | None, tokenizer_ref: ModelRef | None
) -> tuple[Path, Path]:
    """Return the folders of the base and of the tokenizer."""
    recipe, devices, folder = setup.recipe, setup.devices, setup.folder

    def fetch(progress: Progress) -> list[Path | None]:
        return [
            local_folder(ref, setup.client, progress) if ref else None
            for ref in (base_ref, tokenizer_ref)
        ]

    # The main process downloads; the others find what it has.
    devices.on_main(lambda: fetch(setup.progress))
    base, tokenizer = fetch(Silent())
    if isinstance(recipe.base, FreshModel):
        fresh, vocabulary = recipe.base, tokenizer
        assert vocabulary is not None
        if not devices.main_sees(folder.fresh.exists()):
            devices.on_main(lambda: write_fresh(fresh, vocabulary, recipe.seed, folder.fresh))
        base = folder.fresh
    assert base is not None
    sizes = {name: file.nbytes for name, file in read(LocalFolder(base)).files.items()}
    devices.check_same("base", sizes)
    return base, tokenizer or base


def _plan_all_stages(recipe: Recipe, base: Path) -> None:
    """Let what cannot be be found before anything is trained."""
    for _ in plan_stages(recipe, read(LocalFolder(base)), last_growth(base)):
        pass


def _record_identity(
    setup: Setup,
    identity: dict[str, Any],
    checkpoints: Checkpoints,
    at: Position,
    *,
    resume: bool,
    allow_world_change: bool,
) -> None:
    """Compare a run with the one it goes on with, and write down what it is carried out with."""
    if resume:
        removed = setup.folder.check(
            identity,
            setup.recipe,
            stage=at.stage,
            stage_steps=at.stage_step,
            allow_world_change=allow_world_change,
        )
        if removed:
            setup.progress.say(f"The recipe has changed: removed {', '.join(removed)}")
        if not setup.folder.is_finished:
            checkpoints.check(setup.recipe)
    if not setup.folder.is_finished:
        setup.folder.record(identity, setup.recipe)


def _sizes_of(plan: GrowthPlan) -> Model:
    """Return the sizes of the base; of a derived family the parameters that a token passes too."""
    sizes = model_record(plan, "base", files={})
    if plan.derived is None:
        return sizes
    active = arithmetic(filled_config(plan.config), 1).num_active_parameters
    return replace(sizes, num_active_parameters=active) if active < plan.num_parameters else sizes


def _run_stages(
    setup: Setup,
    base: Path,
    base_ref: ModelRef | None,
    corpus: Corpus,
    order: BlockOrder,
    checkpoints: Checkpoints,
    position: Position,
) -> None:
    """Run all stages that are not done, from where the run stands."""
    recipe, devices, folder, progress = setup.recipe, setup.devices, setup.folder, setup.progress
    plan = BatchPlan.of_tokens(
        recipe.batch_tokens,
        sequence_length=recipe.data.sequence_length,
        micro_batch_size=recipe.micro_batch_size,
        world_size=devices.num_processes,
    )
    progress.say(f"Training on {devices.words()}")
    advice = threads_advice() if devices.device.type == "cpu" else ""
    if advice and (busy := others_at_work()):
        progress.say(f"Note: {busy}: {advice}")
    _pass_over(setup, position, plan)
    if position.step:
        lost = never_saved(read_metrics(folder.path), position.step) if devices.is_main else 0
        were = "step was" if lost == 1 else "steps were"
        again = f"; {lost:,} later {were} not saved, so trained again" if lost else ""
        progress.say(f"Going on from step {position.step:,} ({position.tokens:,} tokens){again}")
    metrics = Metrics(folder.path, recipe, devices, progress, begin=position)
    run = Run(
        recipe=recipe,
        devices=devices,
        corpus=corpus,
        order=order,
        plan=plan,
        metrics=metrics,
        position=position,
        save_checkpoint=lambda stage: checkpoints.save(stage, position),
        cadence=Cadence(recipe.checkpoint, recipe.batch_tokens),
        base_sizes=_sizes_of(read(LocalFolder(base))),
    )
    stages = StageRunner(
        run=run,
        output=folder,
        base=base,
        ref=base_ref,
        checkpoints=checkpoints,
        learner=Learner(recipe, corpus, devices.device, folder.maps, progress),
    )
    try:
        stages.run_all()
    finally:
        metrics.close()


def _pass_over(setup: Setup, at: Position, plan: BatchPlan) -> None:
    """Stand behind the stages whose models are there, though their checkpoints are not."""
    recipe, devices, folder = setup.recipe, setup.devices, setup.folder
    batch_tokens = recipe.batch_tokens
    last = devices.shared(lambda: folder.last_trained)
    passed = 0
    for number in range(at.stage, last + 1):
        if (train := recipe.stages[number].train) is None:
            continue
        at.begin_stage(number)
        tokens = devices.shared(partial(folder.trained_tokens, number)) if train.until else None
        steps = train.num_steps(batch_tokens) if tokens is None else tokens // batch_tokens
        passed = steps - at.stage_step
        at.advance(passed, samples=plan.num_samples, tokens=batch_tokens)
    if not passed:
        return
    following = takewhile(lambda stage: stage.grow, recipe.stages[last + 1 :])
    for number, stage in enumerate(following, last + 1):
        if stage.grow and stage.grow.optimizer_state != "reset":
            reset = f"stages.{number}.grow.optimizer_state=reset"
            raise TrainingError(
                f"the last checkpoint of stage {last} is gone or damaged, and growth wants its "
                "optimizer's state",
                hint=f"{argument('overrides', reset)} in a new output",
            )
    at.evaluations = devices.shared(lambda: recorded_evaluations(folder.path, at))
