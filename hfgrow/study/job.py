"""One run of a study: what it does, what it costs, and what it is a fork of."""

from dataclasses import dataclass
from pathlib import Path

from hfgrow.plan.plan import LayerSource
from hfgrow.study.accounting import StageCost, total
from hfgrow.train.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run.

    Attributes:
        name: Of the run and its folder.
        arm: The arm it is of; None for a base.
        seed: Its seed.
        recipe: What it does.
        costs: What each of its stages of training costs, and of growth that learns.
        layer_map: Where the layers of the result come from; None if nothing grew.
        base: The run that it is a fork of; None if it begins on its own.
    """

    name: str
    arm: str | None
    seed: int
    recipe: Recipe
    costs: tuple[StageCost, ...]
    layer_map: tuple[LayerSource, ...] | None
    base: "StudyRun | None" = None

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.recipe.output)

    @property
    def first_grown(self) -> int:
        """The first stage of training after the first growth; 0 where nothing grows."""
        grows = [i for i, stage in enumerate(self.recipe.stages) if stage.grow]
        return self._next_training(grows[0]) if grows else 0

    @property
    def as_target(self) -> int:
        """The first stage of training after the last growth; 0 where nothing grows."""
        grows = [i for i, stage in enumerate(self.recipe.stages) if stage.grow]
        return self._next_training(grows[-1]) if grows else 0

    @property
    def falls(self) -> bool:
        """Whether its learning rate falls, so that losses before its end are not finished ones."""
        trains = (stage.train for stage in self.recipe.stages[self.as_target :])
        return any(train.schedule != "constant" for train in trains if train)

    @property
    def own_flops(self) -> float:
        """6ND FLOPs of the run, without those of the one that it is a fork of."""
        return total(self.costs) - (total(self.base.costs) if self.base else 0.0)

    def _next_training(self, number: int) -> int:
        trains = (i for i, stage in enumerate(self.recipe.stages) if stage.train)
        return next(i for i in trains if i > number)
