"""The stages of a recipe, walked over the plan of its base: what each makes and trains.

A growth that cannot be, or a pattern that matches nothing, is found in the first second and not
when the stages before it are trained. A run plans its stages by this before it begins.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

from hfgrow.checkpoint.files import MANIFEST
from hfgrow.checkpoint.read import read
from hfgrow.console import Progress
from hfgrow.data.order import check_sequence_length
from hfgrow.errors import GrowthError, UsageError, argument, growth, printable
from hfgrow.growth.models import files_of, locate
from hfgrow.growth.recorded import kept_by, kept_since
from hfgrow.growth.steps import planned
from hfgrow.hub.client import HubClient
from hfgrow.lineage.manifest import Link
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.undo import Kept
from hfgrow.train.initial_weights import fresh_plan
from hfgrow.train.mup import Multiples, multiples_of
from hfgrow.train.optimizers import only_new, partly_new, trained_names
from hfgrow.train.parameter_names import names_in_files
from hfgrow.train.recipe.parts import FreshModel, ScheduleFreeAdamW
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import Train


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A model that a stage leaves behind.

    Attributes:
        number: The stage, from 0.
        plan: The model.
        trained: The names of the tensors that the stage trained; none if it grew.
        partly_new: Those of them that the last growth added to, and that train otherwise for it.
        rates: What parametrization makes of the peak, in words.
    """

    number: int
    plan: GrowthPlan
    trained: frozenset[str]
    partly_new: frozenset[str]
    rates: str = ""

    @property
    def num_hidden_layers(self) -> int:
        """Its layers."""
        return self.plan.num_hidden_layers

    @property
    def num_parameters(self) -> int:
        """Its parameters."""
        return self.plan.num_parameters

    @property
    def num_trained(self) -> int:
        """Those of them that the stage trains."""
        return self._num(self.trained)

    @property
    def num_partly_new(self) -> int:
        """Those of the tensors that are new in part."""
        return self._num(self.partly_new)

    def _num(self, names: Iterable[str]) -> int:
        return sum(prod(self.plan.tensors[name].shape) for name in names)


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
    return tuple(plan_stages(recipe, read(files, progress), growth))


def plan_stages(recipe: Recipe, base: GrowthPlan, growth: Link | None) -> Iterator[PlannedStage]:
    """Walk the stages of a recipe over the plan of its base.

    Args:
        base: The plan of the model that it begins with.
        growth: The base's own last growth, if it has one.

    Raises:
        UsageError: A stage cannot be; the message names it.
    """
    plan, layer_map = base, None if growth is None else growth.layer_sources
    # Found out only where a stage asks for it.
    kept: Callable[[], Mapping[str, Kept] | None] = partial(kept_since, base.config, growth)
    positions = base.settings.get("max_position_embeddings")
    if isinstance(positions, int):
        check_sequence_length(recipe.data.sequence_length, positions)
    for number, stage in enumerate(recipe.stages):
        trained = parts = frozenset[str]()
        rates = ""
        try:
            if stage.grow:
                kept = partial(kept_by, plan, stage.grow.step)
                plan = planned(plan, [stage.grow.step], is_draft=True)
                layer_map = plan.steps[-1].layer_map
            elif stage.train:
                _check_trainable(recipe, stage.train, plan)
                if stage.train.new_warmup is not None and layer_map is None:
                    raise UsageError(
                        "new_warmup is of what a growth added, and nothing grew before this stage",
                        hint="leave it out here",
                    )
                older = kept() if stage.train.looks_at_growth else None
                names = names_in_files(plan)
                trained = trained_names(plan.tensors, stage.train, layer_map, older, names)
                if stage.train.parametrization:
                    rates = _rates(stage.train, multiples_of(base, plan), plan, trained)
                parts = trained & _partly_new_names(recipe, stage.train, older)
        except GrowthError as error:
            raise UsageError(f"stages.{number}: {error}", hint=error.hint) from error
        yield PlannedStage(number, plan, trained, parts, rates)


def _rates(
    train: Train, multiples: Mapping[str, Multiples], plan: GrowthPlan, trained: frozenset[str]
) -> str:
    """Return what parametrization makes of the stage's own rate, in words."""
    counts: Counter[float] = Counter()
    for name in trained:
        counts[train.learning_rate / multiples[name].inputs] += prod(plan.tensors[name].shape)
    return ", ".join(f"{rate:.3g} of {n:,} parameters" for rate, n in sorted(counts.items()))


def _partly_new_names(
    recipe: Recipe, train: Train, kept: Mapping[str, Kept] | None
) -> frozenset[str]:
    parts = partly_new(kept)
    is_average = isinstance(recipe.optimizer, ScheduleFreeAdamW)
    if parts and is_average and only_new(train.trainable):
        raise UsageError(
            f"trainable {train.trainable}: {next(iter(parts))} is new in part, and the average of "
            f"{recipe.optimizer.name} would round what is old in it",
            hint="optimizer: {name: adamw}",
        )
    return frozenset(parts)


def _check_trainable(recipe: Recipe, train: Train, plan: GrowthPlan) -> None:
    """Refuse what a model cannot be trained with."""
    if train.mask_ramp is not None and (plan.derived or FAMILIES[plan.family].has_experts):
        raise UsageError(
            f"the mask of random growth cannot open in a {printable(plan.family)}: it multiplies "
            "what single matrices give, and hfgrow does not know them there",
            hint=f"this keeps the function too: {growth('zero-depth', g=2)}",
        )
    if plan.derived is not None and recipe.data.document_mask:
        raise UsageError(
            f"document_mask cannot be kept in a {printable(plan.family)}: transformers computes "
            "its attention and states, and does not tell them where documents end, so that they "
            "would see each other all the same",
            hint=argument("document_mask", "false"),
        )
