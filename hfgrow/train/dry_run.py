"""A dry run: what a recipe will do and cost, and what would stop it, without reading weights."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import check_apart
from hfgrow.console import Progress, Silent, duration, size
from hfgrow.data.columns import pinned
from hfgrow.data.corpus import HELD_OUT
from hfgrow.data.prepare import demo_documents
from hfgrow.data.sources import DEMO, TextSource, most_tokens, text_files_of
from hfgrow.errors import GrowthError, HubUnreachableError
from hfgrow.growth.loading import filled_config, filled_settings
from hfgrow.growth.models import locate
from hfgrow.hub.client import HubClient
from hfgrow.train.beforehand import recipe_lines
from hfgrow.train.cadence import cadence_line
from hfgrow.train.devices import check_trackers
from hfgrow.train.estimate import (
    Memory,
    Rate,
    device_of,
    memory_of,
    others_at_work,
    rate_of,
    threads_advice,
)
from hfgrow.train.flops import arithmetic, spent_flops
from hfgrow.train.loss import router_note
from hfgrow.train.optimizers import is_inside, only_new
from hfgrow.train.parameter_names import names_in_files
from hfgrow.train.planned_stages import PlannedStage, plan_recipe
from hfgrow.train.recipe.parts import Muon, text_source
from hfgrow.train.recipe.recipe import Recipe, learning_of
from hfgrow.train.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a recipe will do and need.

    Attributes:
        recipe: The recipe.
        models: The model after each stage.
        needs: What the run needs of compute and disk.
        memory: What its largest stage of training needs.
        rate: How fast it goes; None if nobody can say.
        notes: What would stop the run, and what else is to be known of it.
    """

    recipe: Recipe
    models: tuple["PlannedStage", ...]
    needs: "Needs"
    memory: Memory
    rate: Rate | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """What training and evaluation take; None where no rate is known."""
        if self.rate is None:
            return None
        speed = self.rate.flops_per_s * self.recipe.world.processes
        return (sum(self.needs.flops.values()) + self.needs.evaluation_flops) / speed

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what it says by its names."""
        recipe, needs, memory = self.recipe, self.needs, self.memory
        head, *lines = recipe_lines(recipe, self.models, needs.flops)
        yield "run", head
        for line in lines:
            name, _, text = line.strip().partition(": ")
            yield name, text + self._time_of(name)
        where = f"{needs.num_evaluations} times" if needs.num_evaluations > 1 else "once"
        texts = recipe.data.validation
        held = (
            f"{len(texts)} held-out text{'s' * (len(texts) > 1)}"
            if texts
            else ("0.5 % of the training text, held out")
        )
        most = "at most " if recipe.may_end_early else ""
        yield "evaluations", f"{most}{where}, of at most {needs.evaluation_tokens:,} tokens: {held}"
        yield "compute", f"{most}{sum(needs.flops.values()):.3g} FLOPs in all"
        if self.rate is None or self.seconds is None:
            yield "time", "not known: nobody has said what this device can do"
        else:
            evaluation_s = needs.evaluation_flops / self.rate.flops_per_s / recipe.world.processes
            yield (
                "time",
                f"{most}about {duration(self.seconds - evaluation_s)} of training and at most "
                f"{duration(evaluation_s)} of evaluation, at {self.rate.flops_per_s:.3g} FLOP/s "
                f"a device ({self.rate.source}); besides tokenising and saving",
            )
        parts = {
            "weights": memory.weights,
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "activations": memory.activations,
            "logits": memory.logits,
            "program": memory.program,
        }
        told = ", ".join(f"{key} {size(n)}" for key, n in parts.items() if n)
        unknown = "" if memory.activations is not None else ", activations not counted"
        of = "" if memory.available is None else f" of {size(memory.available)} that are free"
        each = " in each process" if recipe.world.processes > 1 else ""
        yield "memory", f"about {size(memory.total)}{of}{each}: {told}{unknown}"
        yield (
            "disk",
            f"up to {size(needs.disk_nbytes)}, without the tokens of the text: a checkpoint takes "
            f"{size(needs.checkpoint_nbytes)}, and {recipe.checkpoint.keep} are kept",
        )

    def _time_of(self, name: str) -> str:
        """Return how long a stage takes, as the end of its line."""
        kind, _, number = name.partition(" ")
        flops = self.needs.flops.get(int(number)) if kind == "stage" else None
        if flops is None or self.rate is None:
            return ""
        return f"; {duration(flops / self.rate.flops_per_s / self.recipe.world.processes)}"

    def to_json(self) -> dict[str, Any]:
        """Return all of it, the recipe with every default."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "stages": [
                {
                    "stage": model.number,
                    "num_hidden_layers": model.num_hidden_layers,
                    "num_parameters": model.num_parameters,
                    "num_trained": model.num_trained,
                    "flops": self.needs.flops.get(model.number),
                }
                for model in self.models
            ],
            "flops": sum(self.needs.flops.values()),
            "evaluations": self.needs.num_evaluations,
            "evaluation_flops": self.needs.evaluation_flops,
            "seconds": self.seconds,
            "rate": None if self.rate is None else asdict(self.rate),
            "memory": self.memory.to_json(),
            "checkpoints": cadence_line(self.recipe.checkpoint),
            "checkpoint_nbytes": self.needs.checkpoint_nbytes,
            "disk_nbytes": self.needs.disk_nbytes,
            "notes": list(self.notes),
        }


def dry_run(
    recipe: Recipe,
    client: HubClient,
    progress: Progress,
    *,
    resume: bool = False,
    on_cpu: bool = False,
) -> DryRun:
    """Return what a recipe will do and need, and what of the output would stop it.

    Args:
        recipe: The recipe.
        client: The connection to the Hub: headers of the base are fetched.
        progress: Told how it goes on.
        resume: Whether a run that lies in the output goes on.
        on_cpu: Whether accelerators are left alone.

    Raises:
        GrowthError: Base, tokenizer, text, a tracker or a stage cannot be.
    """
    check_trackers(recipe)
    unasked = list(_check_texts(recipe, client))
    models = plan_recipe(recipe, client, progress)
    needs = needs_of(recipe, models)
    folder = RunFolder(Path(recipe.output).expanduser())
    for name in (recipe.base, recipe.tokenizer):
        if isinstance(name, str):
            # The base was told about above.
            path = locate(name, None, client, Silent()).path
            if path is not None:
                check_apart(folder.path, path)
    notes = [*unasked, *dict.fromkeys(_router_notes(recipe, models))]
    try:
        folder.check_free(resume=resume)
    except GrowthError as error:
        notes.append(f"the run itself would stop here: {error}")
    if folder.holds_a_run and resume:
        notes.append("whether the run that lies there can go on is found when it does")
    elif lack := needs.lack(folder.path):
        notes.append(lack)
    device = device_of(on_cpu=on_cpu)
    largest = max(
        (model for model in models if recipe.stages[model.number].train),
        key=lambda model: model.num_parameters + model.num_trained,
    )
    config = filled_config(largest.plan.config)
    progress.say(f"Measuring what memory the model of stage {largest.number} takes")
    memory = memory_of(
        recipe,
        config,
        num_parameters=largest.num_parameters,
        num_masked=largest.num_partly_new,
        num_held=largest.num_partly_new if _holds_copies(recipe, largest) else 0,
        num_trained=largest.num_trained,
        state_nbytes=_state_nbytes(recipe, largest),
        device=device,
    )
    # Processes on CPUs share the memory too.
    total = memory.total * (recipe.world.processes if device.type == "cpu" else 1)
    if memory.available is not None and total > memory.available:
        notes.append(
            f"the run takes about {size(total)} of memory, and {size(memory.available)} are "
            "free: lower micro_batch_size, or set activation_checkpointing"
        )
    cost = stage_cost(recipe, largest)
    rate = cost and rate_of(recipe, config, progress, flops_per_token=cost[1], device=device)
    if device.type == "cpu" and (busy := others_at_work()):
        is_measured = rate is not None and rate.is_measured
        time = (
            "the time is that beside them"
            if is_measured
            else "the time is that of free cores, and may be many times as long"
        )
        notes.append("; ".join(filter(None, (f"{busy}: {time}", threads_advice()))))
    return DryRun(
        recipe=recipe, models=models, needs=needs, memory=memory, rate=rate, notes=tuple(notes)
    )


def _check_texts(recipe: Recipe, client: HubClient) -> Iterator[str]:
    """Refuse text that is not there, and yield a note where the Hub could not be asked for it."""
    sources = [text_source(source) for source in (*recipe.data.train, *recipe.data.validation)]
    for source in sources:
        text_files_of(source)
    on_hub = [source for source in sources if source.dataset not in (None, DEMO)]
    for number, source in enumerate(on_hub):
        try:
            pinned(source, client)
        except HubUnreachableError as error:
            labels = ", ".join(dict.fromkeys(source.label for source in on_hub[number:]))
            yield f"whether there is such text was not asked of the Hub ({labels}): {error}"
            return


def _router_notes(recipe: Recipe, models: Sequence[PlannedStage]) -> Iterator[str]:
    for model in models:
        if recipe.stages[model.number].train:
            note = router_note(filled_settings(model.plan))
            yield from [f"stage {model.number}: {note}"] if note else []


def _holds_copies(recipe: Recipe, model: PlannedStage) -> bool:
    """Say whether a stage copies tensors that are new in part: always, or while these warm up."""
    train = recipe.stages[model.number].train
    return train is not None and (only_new(train.trainable) or train.new_warmup is not None)


_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run needs.

    Attributes:
        flops: Stage -> its exact FLOPs, of training or of learning maps.
        checkpoint_nbytes: Bytes of the largest checkpoint.
        disk_nbytes: Bytes that the output takes at its largest, without the tokens of the text.
        num_evaluations: How often held-out text is measured.
        evaluation_tokens: How many tokens it has at most.
        evaluation_flops: What that costs at most.
    """

    flops: dict[int, float]
    checkpoint_nbytes: int
    disk_nbytes: int
    num_evaluations: int
    evaluation_tokens: int
    evaluation_flops: float

    def lack(self, output: Path) -> str:
        """Return what a disk lacks, in words; empty where it all fits."""
        parent = output.absolute()
        while not parent.exists():
            parent = parent.parent
        free = shutil.disk_usage(parent).free
        if self.disk_nbytes <= free:
            return ""
        return f"the run may take {size(self.disk_nbytes)} of disk, and {size(free)} are free"


def needs_of(recipe: Recipe, models: Sequence[PlannedStage]) -> Needs:
    """Return what a recipe needs."""
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
    times = list(_evaluations(recipe, models))
    return Needs(
        flops,
        largest,
        kept + (recipe.checkpoint.keep + 1) * largest,
        sum(number for number, _ in times),
        _most_evaluated(recipe),
        sum(number * cost for number, cost in times),
    )


def _most_evaluated(recipe: Recipe) -> int:
    """Return how many tokens an evaluation has at most: what is asked for, or what the text has."""
    asked, found = recipe.evaluation.tokens, 0
    for source in recipe.data.validation or recipe.data.train:
        most = _most_tokens(text_source(source))
        if most is not None and not recipe.data.validation:
            # Whole documents are held out, the last of them as long as all should be.
            most = max(recipe.data.sequence_length + 1, ceil(2 * HELD_OUT * most))
        found += asked if most is None else min(asked, most)
    return found


def _most_tokens(source: TextSource) -> int | None:
    if source.dataset == DEMO:
        return sum(len(piece.text.encode()) for piece in demo_documents(source.whole_split))
    return most_tokens(source)


def _evaluations(recipe: Recipe, models: Sequence[PlannedStage]) -> Iterator[tuple[int, float]]:
    """Yield how often each stage measures held-out text, and what one time costs at most."""
    asked, batch, length = recipe.evaluation, recipe.batch_tokens, recipe.data.sequence_length
    most, done = _most_evaluated(recipe), 0
    for model in models:
        stage = recipe.stages[model.number]
        if stage.train is None:
            # A run that begins with growth measures its base.
            times = int(model.number == 0)
        else:
            end = done + stage.train.num_steps(batch) * batch
            every = asked.every_tokens
            inside = 0 if every is None else (end - batch) // every - done // every
            times, done = 2 + max(0, inside), end
        # A forward pass is a third of a step.
        exact = arithmetic(filled_config(model.plan.config), length).exact_flops
        yield times, most * exact / 3


def stage_cost(recipe: Recipe, model: PlannedStage) -> tuple[int, float] | None:
    """Return the tokens of a stage and the exact FLOPs of one; None where nothing learns."""
    stage, length = recipe.stages[model.number], recipe.data.sequence_length
    if stage.train:
        tokens = stage.train.num_steps(recipe.batch_tokens) * recipe.batch_tokens
        return tokens, spent_flops(filled_config(model.plan.config), length, model.trained)
    if stage.grow and stage.grow.needs_maps:
        asked = learning_of(stage.grow, recipe)
        tokens = (asked.steps or 0) * (asked.batch_tokens or 0)
        return tokens, arithmetic(filled_config(model.plan.config), length).exact_flops
    return None


def _state_nbytes(recipe: Recipe, model: PlannedStage) -> int:
    """Return the bytes of the optimizer's state: two moments, or Muon's one of inner matrices."""
    numbers, names = 0, names_in_files(model.plan)
    for name in model.trained:
        shape = model.plan.tensors[name].shape
        has_one = isinstance(recipe.optimizer, Muon) and is_inside(name, len(shape), names)
        numbers += prod(shape) * (1 if has_one else 2)
    return _FLOAT32 * numbers
