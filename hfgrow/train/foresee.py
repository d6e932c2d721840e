"""What every stage of a recipe will meet, before the first of them begins.

A growth that cannot be, or a pattern that matches nothing, is found in the first second and not
when the stages before it are trained. No weight is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hfgrow.checkpoint.files import MANIFEST
from hfgrow.checkpoint.read import read
from hfgrow.console import Progress
from hfgrow.errors import GrowthError, UsageError
from hfgrow.growth.models import files_of, locate
from hfgrow.growth.steps import planned
from hfgrow.hub.client import HubClient
from hfgrow.lineage.read import manifest_of
from hfgrow.plan.plan import GrowthPlan, LayerSource
from hfgrow.train.data.order import check_sequence_length
from hfgrow.train.fresh import fresh_plan
from hfgrow.train.groups import trained_names
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_parts import FreshModel


@dataclass(frozen=True, slots=True)
class Foreseen:
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


def foresee_by_name(recipe: Recipe, client: HubClient, progress: Progress) -> tuple[Foreseen, ...]:
    """Walk the stages of a recipe over the headers of the base that it names.

    Of a base on the Hub only headers are fetched.

    Raises:
        GrowthError: As `foresee`; or there is no such base.
    """
    if isinstance(recipe.base, FreshModel):
        return tuple(foresee(recipe, fresh_plan(recipe.base.config), None))
    files = files_of(locate(recipe.base, None, client, progress), client)
    has_lineage = MANIFEST in files.names()
    growth = manifest_of(files).last_growth if has_lineage else None
    layer_map = None if growth is None else growth.layer_sources
    return tuple(foresee(recipe, read(files), layer_map))


def foresee(
    recipe: Recipe, base: GrowthPlan, layer_map: tuple[LayerSource, ...] | None
) -> Iterator[Foreseen]:
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
            elif stage.train:
                trained = trained_names(plan.tensors, stage.train, layer_map)
        except GrowthError as error:
            raise UsageError(f"stages.{number}: {error}", hint=error.hint) from error
        yield Foreseen(number, plan, trained)
