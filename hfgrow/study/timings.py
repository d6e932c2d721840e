"""Growth timings that a study tried, as `hfgrow budget --fit` reads them.

Arms that differ in the tokens of their base alone tell at which of these the loss is lowest for
a budget of compute. Under a constant learning rate every cost on the way is such a budget.
"""

import json
from collections.abc import Sequence
from typing import Any

from hfgrow.study.accounting import ALL_IN
from hfgrow.study.design import Design
from hfgrow.study.job import StudyRun
from hfgrow.study.results import Result, by_arm
from hfgrow.study.speedup import loss_at, mean

_LEAST_TIMINGS = 3
_NUM_BUDGETS = 4


def timings(design: Design, found: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the losses of growth timings at budgets that all of them reached.

    Args:
        design: The runs.
        found: What they measured.

    Returns:
        For each budget `parameters` (N of the target), `flops` (C, 6ND, the base's among them) and
        `losses`: `base_tokens` (d) and `loss` (nats a token, the mean over seeds) of each timing.
        Nothing if fewer than three timings were tried, or the learning rate was not constant.
    """
    jobs = {job.arm: job for job in design.arms}
    groups: dict[str, dict[int, list[Result]]] = {}
    for arm, finished in by_arm(found).items():
        timing = _base_tokens(jobs[arm])
        if finished and timing and _is_constant(design, arm):
            groups.setdefault(_all_but_timing(design, jobs[arm]), {})[timing] = finished
    return [
        budget
        for group in groups.values()
        if len(group) >= _LEAST_TIMINGS
        for budget in _budgets(group, design.arms[0].costs[-1].num_parameters)
    ]


def _base_tokens(job: StudyRun) -> int:
    return sum(cost.tokens for cost in job.costs if cost.is_base)


def _is_constant(design: Design, arm: str) -> bool:
    train = design.study.train | design.study.arms[arm].train
    return train.get("schedule") == "constant"


def _all_but_timing(design: Design, job: StudyRun) -> str:
    """Return what an arm is, but for how long its base is trained."""
    arm = design.study.arms[job.arm or ""]
    base = design.study.bases[design.study.base_of(arm) or ""]
    alike = (arm.model_dump(exclude={"base", "paper"}), base.model_dump(exclude={"factor"}))
    return json.dumps(alike, sort_keys=True)


def _budgets(group: dict[int, list[Result]], num_parameters: int) -> list[dict[str, Any]]:
    seeds = set.intersection(*({result.seed for result in found} for found in group.values()))
    curves = {
        timing: [result.curve(ALL_IN) for result in found if result.seed in seeds]
        for timing, found in group.items()
    }
    every = [curve for some in curves.values() for curve in some]
    if not every or min(map(len, every)) < 2:
        return []
    # Just after growth, where a curve begins, the loss has jumped.
    low, high = max(curve[1][0] for curve in every), min(curve[-1][0] for curve in every)
    if low >= high:
        return []
    found = []
    for i in range(_NUM_BUDGETS):
        flops = high * (low / high) ** (i / _NUM_BUDGETS)
        losses = []
        for timing, some in sorted(curves.items()):
            at = [loss for curve in some if (loss := loss_at(curve, flops)) is not None]
            losses.append({"base_tokens": timing, "loss": mean(at)})
        found.append({"parameters": num_parameters, "flops": flops, "losses": losses})
    return found
