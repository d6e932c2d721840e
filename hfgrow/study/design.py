"""From a study to its runs: the training recipe of every base and arm for every seed.

An arm is a fork of its base's run: the same first stage, then growth and training. So it goes on
with the base's optimizer and with the text where the base stopped, and its ledger holds what the
base has cost.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.errors import GrowthError, UsageError, printable
from hfgrow.study.accounting import total
from hfgrow.study.arms import Arm, Base
from hfgrow.study.foresee import check_target, costs_of, foreseen
from hfgrow.study.job import StudyRun
from hfgrow.study.recipe import StudyRecipe
from hfgrow.study.stages import arm_stages, base_stage
from hfgrow.train.recipe.fields import numbers_in
from hfgrow.train.recipe.recipe import recipe_of

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

    Args:
        study: The study.
        out: Its folder.

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
        whole: The design.
        arms: The arms; None takes all.
        seeds: The seeds; None takes all.

    Raises:
        UsageError: There is no such arm.
    """
    known = whole.study.arms
    for arm in sorted((arms or frozenset()) - known.keys()):
        raise UsageError(
            f"the study has no arm {printable(arm)}", hint=f"it has {', '.join(known)}"
        )
    if arms is not None and not arms:
        raise UsageError("no arm is left", hint=f"the study has {', '.join(known)}")
    return _only(
        whole,
        lambda job: (arms is None or job.arm in arms) and (seeds is None or job.seed in seeds),
    )


def begun(whole: Design, also: Collection[str] = ()) -> Design:
    """Return only the arms and seeds of a design that have a folder, and the bases that they need.

    Args:
        whole: The design.
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
    if arm.scratch == "equal-compute":
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
        models = foreseen(recipe)
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
