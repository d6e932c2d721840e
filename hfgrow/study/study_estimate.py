"""What a study will take: parameters, tokens and FLOPs of every run, and about how long."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from hfgrow.console import Progress, count, duration
from hfgrow.lineage.tables import text_table
from hfgrow.study.accounting import total
from hfgrow.study.design import Design, StudyRun
from hfgrow.study.runs import is_done
from hfgrow.train.estimate import Rate, device_of, rate_of
from hfgrow.train.initial_weights import fresh_plan
from hfgrow.train.recipe.fields import numbers_in

# A run imports, loads, writes and checks: measured on 2 CPU cores.
_STARTUP_S = 8.0


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """A run before it runs.

    Attributes:
        name: Its name.
        num_parameters: Parameters of its last model.
        tokens: Tokens that it trains on itself.
        flops: 6ND FLOPs of those.
        all_in_flops: The same with its base.
        done: Whether it is finished already.
    """

    name: str
    num_parameters: int
    tokens: int
    flops: float
    all_in_flops: float
    done: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a study will take.

    Attributes:
        name: The study.
        runs: Its runs.
        flops_per_s: What one run reaches here, 6ND; None where nothing says it.
        source: Where that comes from, in words.
        seconds: What is left takes about so long; None where nothing says it.
        num_parallel: Runs at a time.
    """

    name: str
    runs: tuple[RunEstimate, ...]
    flops_per_s: float | None
    source: str
    seconds: float | None
    num_parallel: int

    def lines(self) -> Iterator[str]:
        """Yield it in words."""
        yield f"{self.name}: {len(self.runs)} runs, {self.num_parallel} at a time"
        rows = [("  run", "parameters", "tokens", "FLOPs", "with its base", "")]
        rows += [
            (
                f"  {run.name}",
                count(run.num_parameters),
                f"{run.tokens:,}",
                f"{run.flops:.3g}",
                f"{run.all_in_flops:.3g}",
                "finished" if run.done else "",
            )
            for run in self.runs
        ]
        yield from text_table(rows, left=(0, 5))
        yield f"all together: {sum(run.flops for run in self.runs):.3g} FLOPs"
        if self.seconds is None or self.flops_per_s is None:
            yield "time: not estimated, the peak of this device is not known"
        else:
            yield (
                f"time: about {duration(self.seconds)} here, {self.flops_per_s:.3g} FLOP/s a run "
                f"({self.source})"
            )

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


def estimate(design: Design, progress: Progress, *, num_parallel: int, on_cpu: bool) -> Estimate:
    """Return what a study will take.

    Args:
        design: Its runs.
        progress: Told where steps of the largest are timed.
        num_parallel: How many run at a time.
        on_cpu: Whether accelerators are left alone.
    """
    runs = tuple(
        RunEstimate(
            name=job.name,
            num_parameters=job.costs[-1].num_parameters,
            tokens=sum(cost.tokens for cost in job.costs if not cost.is_base),
            flops=job.own_flops,
            all_in_flops=total(job.costs),
            done=is_done(job),
        )
        for job in design.jobs
    )
    largest = max(design.jobs, key=lambda job: job.costs[-1].num_parameters)
    rate = _rate(largest, design, progress, num_parallel=num_parallel, on_cpu=on_cpu)
    if rate is None:
        return Estimate(design.study.name, runs, None, "", None, num_parallel)
    cost = largest.costs[-1]
    flops_per_s = rate.flops_per_s * largest.recipe.world.processes * cost.flops / cost.exact_flops
    left = [(job, run) for job, run in zip(design.jobs, runs, strict=True) if not run.done]
    work = sum(run.flops * (1 + _share_of_evaluation(job)) / flops_per_s for job, run in left)
    seconds = (work + _STARTUP_S * len(left)) / min(num_parallel, max(1, len(left)))
    return Estimate(design.study.name, runs, flops_per_s, rate.source, seconds, num_parallel)


def _share_of_evaluation(job: StudyRun) -> float:
    """Return what evaluation takes beside training: a forward pass is a third of a step."""
    evaluation = job.recipe.evaluation
    if evaluation.every_tokens is None:
        return 0.0
    texts = max(1, len(job.recipe.data.validation))
    return texts * evaluation.tokens / evaluation.every_tokens / 3


def _rate(
    job: StudyRun, design: Design, progress: Progress, *, num_parallel: int, on_cpu: bool
) -> Rate | None:
    """Return how fast the target trains with the cores that a run gets."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(_num_threads(num_parallel))
    try:
        return rate_of(
            job.recipe,
            fresh_plan(numbers_in(design.study.model)).config,
            progress,
            flops_per_token=job.costs[-1].exact_flops,
            device=device_of(on_cpu=on_cpu),
        )
    finally:
        torch.set_num_threads(threads)


def _num_threads(num_parallel: int) -> int:
    """Return the threads that a run gets: OMP_NUM_THREADS may hold one number for each level."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isdecimal() and int(given):
        return int(given)
    return max(1, len(os.sched_getaffinity(0)) // num_parallel)
