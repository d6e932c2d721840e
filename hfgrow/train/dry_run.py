"""A dry run: what a recipe will do and cost, and what would stop it, without reading weights.

A growth that cannot be, or a pattern that matches nothing, is found in the first second and not
when the stages before it are trained. A run itself plans its stages by this before it begins.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType

from hfgrow.checkpoint.files import MANIFEST
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_apart
from hfgrow.console import Progress, Silent, size
from hfgrow.data.order import check_sequence_length
from hfgrow.data.sources import text_files_of
from hfgrow.errors import GrowthError, UsageError, printable
from hfgrow.growth.loading import filled_config
from hfgrow.growth.models import files_of, locate
from hfgrow.growth.steps import planned
from hfgrow.hub.client import HubClient
from hfgrow.lineage.describe import describe_step
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import layer_of
from hfgrow.plan.plan import GrowthPlan, LayerSource
from hfgrow.train.devices import check_trackers
from hfgrow.train.flops import arithmetic, spent_flops
from hfgrow.train.initial_weights import fresh_plan
from hfgrow.train.optimizers import trained_names
from hfgrow.train.recipe.parts import FreshModel, Muon
from hfgrow.train.recipe.recipe import Recipe, learning_of
from hfgrow.train.run_folder import RunFolder
from hfgrow.train.text import text_source


def dry_run_lines(
    recipe: Recipe, client: HubClient, progress: Progress, *, resume: bool
) -> Iterator[str]:
    """Yield what a recipe will do and need, and what of the output would stop it.

    Args:
        recipe: The recipe.
        client: The connection to the Hub: headers of the base are fetched.
        progress: Told how it goes on.
        resume: Whether a run that lies in the output goes on.

    Raises:
        GrowthError: Base, tokenizer, text, a tracker or a stage cannot be.
    """
    check_trackers(recipe)
    for source in (*recipe.data.train, *recipe.data.validation):
        text_files_of(text_source(source))
    models = plan_recipe(recipe, client, progress)
    needs = needs_of(recipe, models)
    yield from recipe_lines(recipe, models, needs.flops)
    yield from needs.lines(recipe.checkpoint.keep)
    folder = RunFolder(Path(recipe.output).expanduser())
    for name in (recipe.base, recipe.tokenizer):
        if isinstance(name, str):
            # The base was told about above.
            path = locate(name, None, client, Silent()).path
            if path is not None:
                check_apart(folder.path, path)
    try:
        folder.check_free(resume=resume)
    except GrowthError as error:
        yield f"Note: the run itself would stop here: {error}"
    if folder.holds_a_run and resume:
        yield "Note: whether the run that lies there can go on is found when it does"
    elif lack := needs.lack(folder.path):
        yield f"Note: {lack}"


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A model that a stage leaves behind.

    Attributes:
        number: The stage, from 0.
        plan: The model.
        trained: The names of the tensors that the stage trained; none if it grew.
    """

    number: int
    plan: GrowthPlan
    trained: frozenset[str]

    @property
    def num_hidden_layers(self) -> int:
        """Its layers."""
        return self.plan.num_hidden_layers

    @property
    def num_parameters(self) -> int:
        """Its parameters."""
        return self.plan.num_parameters


def plan_recipe(recipe: Recipe, client: HubClient, progress: Progress) -> tuple[PlannedStage, ...]:
    """Walk the stages of a recipe over the headers of the base that it names.

    Of a base on the Hub only headers are fetched.

    Raises:
        GrowthError: As `plan_stages`; or there is no such base.
    """
    if isinstance(recipe.base, FreshModel):
        return tuple(plan_stages(recipe, fresh_plan(recipe.base.config), None))
    files = files_of(locate(recipe.base, None, client, progress), client)
    has_lineage = MANIFEST in files.names()
    growth = manifest_of(files).last_growth if has_lineage else None
    layer_map = None if growth is None else growth.layer_sources
    return tuple(plan_stages(recipe, read(files), layer_map))


def plan_stages(
    recipe: Recipe, base: GrowthPlan, layer_map: tuple[LayerSource, ...] | None
) -> Iterator[PlannedStage]:
    """Walk the stages of a recipe over the plan of its base.

    Args:
        recipe: The recipe.
        base: The plan of the model that it begins with.
        layer_map: That of the base's own last growth, if it has one.

    Raises:
        UsageError: A stage cannot be; the message names it.
    """
    plan = base
    positions = base.config.get("max_position_embeddings")
    if isinstance(positions, int):
        check_sequence_length(recipe.data.sequence_length, positions)
    for number, stage in enumerate(recipe.stages):
        trained: frozenset[str] = frozenset()
        try:
            if stage.grow:
                plan = planned(plan, [stage.grow.step], is_draft=True)
                layer_map = plan.steps[-1].layer_map
            elif stage.train and FAMILIES[plan.family].has_experts:
                raise UsageError(
                    f"a {plan.family} is a mixture of experts, which hfgrow does not train",
                    hint="its folder is a plain checkpoint; train it with transformers",
                )
            elif stage.train:
                trained = trained_names(plan.tensors, stage.train, layer_map)
        except GrowthError as error:
            raise UsageError(f"stages.{number}: {error}", hint=error.hint) from error
        yield PlannedStage(number, plan, trained)


_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run needs.

    Attributes:
        flops: Stage -> its exact FLOPs, of training or of learning maps.
        checkpoint_nbytes: Bytes of the largest checkpoint.
        disk_nbytes: Bytes that the output takes at its largest, without the tokens of the text.
    """

    flops: dict[int, float]
    checkpoint_nbytes: int
    disk_nbytes: int

    def lines(self, keep: int) -> list[str]:
        """Return what it needs in words."""
        return [
            f"  in all {sum(self.flops.values()):.3g} FLOPs; a checkpoint takes "
            f"{size(self.checkpoint_nbytes)} and {keep} are kept: up to {size(self.disk_nbytes)} "
            "of disk, without the tokens of the text"
        ]

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
    return Needs(flops, largest, kept + (recipe.checkpoint.keep + 1) * largest)


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
    numbers = 0
    for name in model.trained:
        shape = model.plan.tensors[name].shape
        has_one = isinstance(recipe.optimizer, Muon) and len(shape) > 1 and layer_of(name)
        numbers += prod(shape) * (1 if has_one else 2)
    return _FLOAT32 * numbers


def recipe_lines(
    recipe: Recipe,
    models: Sequence[PlannedStage] = (),
    flops: Mapping[int, float] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield what a recipe will do, stage by stage.

    Args:
        recipe: The recipe.
        models: The model after each stage, if somebody looked.
        flops: What every stage of training costs, where that is known.
    """
    sizes = {
        model.number: f" to {model.num_hidden_layers} layers, {model.num_parameters:,} parameters"
        if recipe.stages[model.number].grow
        else f" {model.num_hidden_layers} layers, {model.num_parameters:,} parameters,"
        for model in models
    }
    base = recipe.base if isinstance(recipe.base, str) else "a fresh model"
    yield f"{printable(base)} to {printable(recipe.output, 200)}"
    for number, stage in enumerate(recipe.stages):
        if stage.grow:
            grow = stage.grow
            step = describe_step(grow.operator, grow.arguments)
            kept = f"; optimizer state: {grow.optimizer_state}"
            cost = f"; {flops[number]:.3g} FLOPs" if number in flops else ""
            yield f"  stage {number}: grow by {printable(step)}{sizes.get(number, '')}{kept}{cost}"
        elif stage.train:
            train = stage.train
            steps = train.num_steps(recipe.batch_tokens)
            cost = f"; {flops[number]:.3g} FLOPs" if number in flops else ""
            yield (
                f"  stage {number}: train{sizes.get(number, '')} on {train.tokens:,} tokens, "
                f"{steps:,} steps of {recipe.batch_tokens:,}; {recipe.optimizer.name}, "
                f"{train.schedule}, learning rate {train.learning_rate:g}{cost}"
            )
