"""From a study to its runs: the training recipe of every base and arm for every seed.

An arm is a fork of its base's run: the same first stage, then growth and training. So it goes on
with the base's optimizer and with the text where the base stopped, and its ledger holds what the
base has cost.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.errors import GrowthError, UsageError, printable
from hfgrow.plan import LayerSource
from hfgrow.study.accounting import StageCost, total
from hfgrow.study.foresee import costs_of, grown_configs
from hfgrow.study.recipe import Arm, Base, StudyRecipe
from hfgrow.study.stages import arm_stages, base_stage
from hfgrow.train.recipe import Recipe, recipe_of
from hfgrow.train.recipe_fields import numbers_in

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
class Job:
    """One run.

    Attributes:
        name: Of the run and its folder.
        arm: The arm it is of; None for a base.
        seed: Its seed.
        recipe: What it does.
        costs: What each of its stages of training costs.
        layer_map: Where the layers of the result come from; None if nothing grew.
        base: The run that it is a fork of; None if it begins on its own.
    """

    name: str
    arm: str | None
    seed: int
    recipe: Recipe
    costs: tuple[StageCost, ...]
    layer_map: tuple[LayerSource, ...] | None
    base: "Job | None" = None

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.recipe.output)

    @property
    def own_flops(self) -> float:
        """6ND FLOPs of the run, without those of the one that it is a fork of."""
        return total(self.costs) - (total(self.base.costs) if self.base else 0.0)


@dataclass(frozen=True, slots=True)
class Design:
    """All runs of a study.

    Attributes:
        study: The study.
        jobs: Its runs, bases before the arms that grow from them.
    """

    study: StudyRecipe
    jobs: tuple[Job, ...]

    @property
    def arms(self) -> tuple[Job, ...]:
        """The runs of arms."""
        return tuple(job for job in self.jobs if job.arm is not None)


def design(study: StudyRecipe, out: Path) -> Design:
    """Return all runs of a study.

    Args:
        study: The study.
        out: Its folder.

    Raises:
        UsageError: A run cannot be, or an arm ends as something else than the target.
    """
    grown = {name: arm for name, arm in study.arms.items() if arm.scratch is None}
    jobs: list[Job] = []
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


def selected(whole: Design, arms: frozenset[str] | None) -> Design:
    """Return only some arms of a design, and the bases that they need.

    Raises:
        UsageError: There is no such arm.
    """
    if arms is None:
        return whole
    known = whole.study.arms
    for arm in sorted(arms - known.keys()):
        raise UsageError(
            f"the study has no arm {printable(arm)}", hint=f"it has {', '.join(known)}"
        )
    if not arms:
        raise UsageError("no arm is left", hint=f"the study has {', '.join(known)}")
    kept = [job for job in whole.arms if job.arm in arms]
    needed = {job.name for arm in kept for job in (arm, arm.base) if job}
    return Design(whole.study, tuple(job for job in whole.jobs if job.name in needed))


def _base_job(study: StudyRecipe, name: str, base: Base, seed: int, out: Path) -> Job:
    label = f"base-{name}"
    content = _content(study, f"{label}-seed{seed}", seed, out, base.optimizer)
    content |= {"base": {"config": _config(study, base)}, "dtype": "float32"}
    content["stages"] = [base_stage(study, base)]
    return _job(study, label, None, seed, content)


def _grown_job(
    study: StudyRecipe, name: str, arm: Arm, seed: int, out: Path, bases: Mapping[str, Job]
) -> Job:
    base_name = study.base_of(arm)
    assert base_name is not None
    base = study.bases[base_name]
    content = _content(study, f"{name}-seed{seed}", seed, out, base.optimizer)
    content |= {"base": {"config": _config(study, base)}}
    stages = [base_stage(study, base)] if base.factor else []
    content["stages"] = [*stages, *arm_stages(study, arm, seed)]
    return _job(study, name, name, seed, content, bases.get(base_name))


def _scratch_job(
    study: StudyRecipe, name: str, arm: Arm, seed: int, out: Path, dearest: float | None
) -> Job:
    content = _content(study, f"{name}-seed{seed}", seed, out, arm.optimizer)
    content |= {"base": {"config": dict(study.model)}}
    train = study.train | arm.train
    content["stages"] = [{"train": train}]
    job = _job(study, name, name, seed, content)
    if arm.scratch == "equal-compute" and dearest is not None:
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
    base: Job | None = None,
) -> Job:
    try:
        recipe = recipe_of(numbers_in(content), f"{label} of the study {study.name}")
        configs, layer_map = grown_configs(recipe)
        if arm is not None:
            _check_target(study, configs[-1])
    except GrowthError as error:
        message = str(error)
        shown = message if label in message else f"{label} of the study {study.name}: {message}"
        raise UsageError(shown, hint=error.hint) from error
    costs = tuple(costs_of(recipe, configs, num_base_stages=1 if base else 0))
    return Job(f"{label}-seed{seed}", arm, seed, recipe, costs, layer_map, base)


def _check_target(study: StudyRecipe, config: Mapping[str, Any]) -> None:
    wrong = list(_differences(study.model, config))
    if wrong:
        raise UsageError(
            f"it does not end as the target: {', '.join(wrong)}",
            hint="the base times its growth must give `model`",
        )


def _differences(target: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in target.items():
        if isinstance(value, int | float | bool) and config.get(key) != value:
            yield f"{key} is {config.get(key)}, not {value}"
