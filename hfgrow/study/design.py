"""From a study to its runs: the training recipe of every base and arm for every seed, and its cost.

An arm is a fork of its base's run: the same first stage, then growth and training. So it goes on
with the base's optimizer and with the text where the base stopped, and its ledger holds what the
base has cost. No weight is made here.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hfgrow.errors import GrowthError, UsageError, printable
from hfgrow.plan.plan import LayerSource
from hfgrow.study.accounting import StageCost, total
from hfgrow.study.arms import EQUAL_COMPUTE, Arm, Base, StudyRecipe, check_arms
from hfgrow.train.dry_run import stage_cost
from hfgrow.train.flops import arithmetic
from hfgrow.train.initial_weights import fresh_plan
from hfgrow.train.planned_stages import PlannedStage, plan_stages
from hfgrow.train.recipe.fields import Tokens, numbers_in
from hfgrow.train.recipe.parts import FreshModel
from hfgrow.train.recipe.recipe import Recipe, recipe_of
from hfgrow.train.recipe.stages import takes_seed

_COUNT: TypeAdapter[int] = TypeAdapter(Tokens)
_PASSED_ON = (
    "tokenizer",
    "data",
    "batch_tokens",
    "micro_batch_size",
    "precision",
    "checkpoint",
    "evaluation",
    "activation_checkpointing",
    "compile",
    "world",
)


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


@dataclass(frozen=True, slots=True)
class Design:
    """All runs of a study.

    Attributes:
        study: The study.
        jobs: Its runs, bases before the arms that grow from them.
    """

    study: StudyRecipe
    jobs: tuple[StudyRun, ...]

    @property
    def arms(self) -> tuple[StudyRun, ...]:
        """The runs of arms."""
        return tuple(job for job in self.jobs if job.arm is not None)


def design(study: StudyRecipe, out: Path) -> Design:
    """Return all runs of a study.

    Raises:
        UsageError: A run cannot be, or an arm ends as something else than the target.
    """
    grown = {name: arm for name, arm in study.arms.items() if arm.scratch is None}
    jobs: list[StudyRun] = []
    for seed in study.seeds:
        bases = {
            name: _base_job(study, name, base, seed, out)
            for name, base in study.bases.items()
            if base.factor and name in map(study.base_of, grown.values())
        }
        arms = {name: _grown_job(study, name, arm, seed, out, bases) for name, arm in grown.items()}
        dearest = max((total(job.costs) for job in arms.values()), default=None)
        arms |= {
            name: _scratch_job(study, name, arm, seed, out, dearest)
            for name, arm in study.arms.items()
            if arm.scratch is not None
        }
        jobs += [*bases.values(), *(arms[name] for name in study.arms)]
    return Design(study, tuple(jobs))


def selected(
    whole: Design, arms: frozenset[str] | None = None, seeds: frozenset[int] | None = None
) -> Design:
    """Return only some arms and seeds of a design, and the bases that they need.

    Args:
        arms: The arms; None takes all.
        seeds: The seeds; None takes all.

    Raises:
        UsageError: There is no such arm.
    """
    check_arms(whole.study, arms)
    return _only(
        whole,
        lambda job: (arms is None or job.arm in arms) and (seeds is None or job.seed in seeds),
    )


def begun(whole: Design, also: Collection[str] = ()) -> Design:
    """Return only the arms and seeds of a design that have a folder, and the bases that they need.

    Args:
        also: Names of runs that are kept without one.
    """
    return _only(whole, lambda job: job.name in also or job.folder.exists())


def _only(whole: Design, keeps: Callable[[StudyRun], bool]) -> Design:
    kept = [job for job in whole.arms if keeps(job)]
    needed = {job.name for arm in kept for job in (arm, arm.base) if job}
    return Design(whole.study, tuple(job for job in whole.jobs if job.name in needed))


def _base_job(study: StudyRecipe, name: str, base: Base, seed: int, out: Path) -> StudyRun:
    label = f"base-{name}"
    content = _content(study, f"{label}-seed{seed}", seed, out, base.optimizer)
    content |= {"base": {"config": _config(study, base)}, "dtype": "float32"}
    content["stages"] = [base_stage(study, base)]
    return _job(study, label, None, seed, content)


def _grown_job(
    study: StudyRecipe, name: str, arm: Arm, seed: int, out: Path, bases: Mapping[str, StudyRun]
) -> StudyRun:
    base_name = study.base_of(arm)
    assert base_name is not None
    base = study.bases[base_name]
    content = _content(study, f"{name}-seed{seed}", seed, out, base.optimizer)
    content |= {"base": {"config": _config(study, base)}}
    stages = [base_stage(study, base)] if base.factor else []
    with _named(study, name):
        stages += arm_stages(study, arm, seed)
    content["stages"] = stages
    return _job(study, name, name, seed, content, bases.get(base_name))


def _scratch_job(
    study: StudyRecipe, name: str, arm: Arm, seed: int, out: Path, dearest: float | None
) -> StudyRun:
    content = _content(study, f"{name}-seed{seed}", seed, out, arm.optimizer)
    content |= {"base": {"config": dict(study.model)}}
    train = study.train | arm.train
    content["stages"] = [{"train": train}]
    job = _job(study, name, name, seed, content)
    if arm.scratch == EQUAL_COMPUTE:
        assert dearest is not None
        (cost,) = job.costs
        batch = job.recipe.batch_tokens
        tokens = max(1, round(dearest / cost.flops / batch)) * batch
        content["stages"] = [{"train": train | {"tokens": tokens}}]
        job = _job(study, name, name, seed, content)
    return job


def _config(study: StudyRecipe, base: Base) -> dict[str, Any]:
    return study.model | base.config


def _content(
    study: StudyRecipe, folder: str, seed: int, out: Path, optimizer: Mapping[str, Any] | None
) -> dict[str, Any]:
    content = {key: getattr(study, key) for key in _PASSED_ON}
    chosen = study.optimizer if optimizer is None else optimizer
    return content | {"optimizer": chosen, "output": str(out / "runs" / folder), "seed": seed}


def _job(
    study: StudyRecipe,
    label: str,
    arm: str | None,
    seed: int,
    content: dict[str, Any],
    base: StudyRun | None = None,
) -> StudyRun:
    recipe = recipe_of(numbers_in(content), _where(study, label))
    with _named(study, label):
        if recipe.may_end_early:
            raise UsageError(
                "train.until ends a training where nobody knows beforehand, and arms are compared "
                "by what they cost as planned",
                hint="leave it out",
            )
        models = planned_stages(recipe)
        if arm is not None:
            check_target(numbers_in(study.model), models[-1].plan.config)
    costs = tuple(costs_of(recipe, models, num_base_stages=1 if base else 0))
    has_grown = any(stage.grow for stage in recipe.stages)
    layer_map = models[-1].plan.layer_map if has_grown else None
    return StudyRun(f"{label}-seed{seed}", arm, seed, recipe, costs, layer_map, base)


def _where(study: StudyRecipe, label: str) -> str:
    return f"{label} of the study {study.name}"


@contextmanager
def _named(study: StudyRecipe, label: str) -> Iterator[None]:
    """Say in an error of the block which arm or base it is of."""
    try:
        yield
    except GrowthError as error:
        raise UsageError(f"{_where(study, label)}: {error}", hint=error.hint) from error


def base_stage(study: StudyRecipe, base: Base) -> dict[str, Any]:
    """Return the stage that trains a base."""
    assert study.base_tokens is not None
    tokens = max(1, round(study.base_tokens * base.factor))
    return {"train": study.base_train | base.train | {"tokens": tokens}}


def arm_stages(study: StudyRecipe, arm: Arm, seed: int) -> list[dict[str, Any]]:
    """Return what an arm does after its base: growths, and training that adds up to `D`.

    Args:
        arm: One of its arms that grow.
        seed: The seed of the run; growths that draw at random take it unless they name their own.

    Raises:
        UsageError: The trainings do not add up to `D`, or the last stage is none.
    """
    common = study.train | arm.train
    if arm.grow is not None:
        grows = [arm.grow] if isinstance(arm.grow, dict) else arm.grow
        return [*({"grow": _seeded(grow, seed)} for grow in grows), {"train": common}]
    whole = left = _tokens(common)
    stages: list[dict[str, Any]] = []
    given = arm.stages or ()
    for number, stage in enumerate(given):
        if stage.grow is not None:
            stages.append({"grow": _seeded(stage.grow, seed)})
            continue
        tokens = left
        if "tokens" in stage.settings:
            tokens = _tokens(stage.settings)
        elif stage.share is not None:
            tokens = round(stage.share * whole)
        if tokens < 1:
            raise UsageError(f"stages.{number}.train: nothing is left of the {whole:,} tokens")
        left -= tokens
        stages.append({"train": common | stage.settings | {"tokens": tokens}})
    if not given or given[-1].train is None:
        raise UsageError(
            "its stages do not end in training, so that nothing would measure what it ends as",
            hint="add - train: {} at the end",
        )
    # Shares are rounded one by one.
    if abs(left) > len(stages):
        raise UsageError(
            f"its stages train on {whole - left:,} tokens, not on the {whole:,} of train.tokens",
            hint="shares add up to 1, or the last training has none and takes what is left",
        )
    return stages


def _seeded(grow: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return a growth whose random parts differ from seed to seed."""
    takes = takes_seed(grow.get("operator"))
    return {**grow, "seed": seed} if takes and "seed" not in grow else dict(grow)


def _tokens(train: Mapping[str, Any]) -> int:
    """Return the tokens of a training, which may be written 2M.

    Raises:
        UsageError: They are no number of tokens.
    """
    value = train.get("tokens")
    try:
        return _COUNT.validate_python(value)
    except ValidationError as error:
        (fault,) = error.errors(include_url=False)
        shown = "null" if value is None else printable(repr(value))
        raise UsageError(f"train.tokens is {shown}; expected {fault['msg']}") from None


def planned_stages(recipe: Recipe) -> tuple[PlannedStage, ...]:
    """Return the model after each stage of a recipe that begins with a fresh one.

    Raises:
        GrowthError: A stage cannot be.
    """
    assert isinstance(recipe.base, FreshModel)
    return tuple(plan_stages(recipe, fresh_plan(recipe.base.config), None))


def costs_of(
    recipe: Recipe, models: tuple[PlannedStage, ...], *, num_base_stages: int
) -> Iterator[StageCost]:
    """Yield what every stage of training costs, and of growth that learns.

    Args:
        models: The model after each stage.
        num_base_stages: How many of its first stages are those of the base.
    """
    length = recipe.data.sequence_length
    for number, (stage, model) in enumerate(zip(recipe.stages, models, strict=True)):
        cost = stage_cost(recipe, model)
        if cost is None:
            continue
        tokens, exact_flops = cost
        found = arithmetic(model.plan.config, length)
        yield StageCost(
            number=number,
            tokens=tokens,
            num_parameters=found.num_parameters,
            flops=float(found.headline_flops),
            exact_flops=exact_flops,
            is_base=number < num_base_stages,
            is_growth=stage.train is None,
        )


def check_target(model: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a run that ends as something else than the target.

    Args:
        model: The config of the target as a study says it.
        config: That of the model that the run ends as, every default in it.

    Raises:
        UsageError: They differ.
    """
    target = fresh_plan(model).config
    wrong = [
        f"{key} is {config.get(key)}, not {target.get(key)}"
        for key in sorted(target.keys() | config.keys())
        if config.get(key) != target.get(key)
    ]
    if wrong:
        raise UsageError(
            f"it does not end as the target: {', '.join(wrong)}",
            hint="the base times its growth must give `model`",
        )
