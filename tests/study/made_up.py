"""Plans of studies, and results of runs that nobody ran."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hfgrow.study import report_page
from hfgrow.study.accounting import spent_at
from hfgrow.study.arms import load_study
from hfgrow.study.design import Design, StudyRun, design
from hfgrow.study.folder import Machine, Ran
from hfgrow.study.report import blocks
from hfgrow.study.results import Point, Result
from hfgrow.study.summary import summary
from tests.study.studies import tiny

MACHINE = Machine("A <CPU>", 2, (), {"torch": "2"}).to_json()
RAN = (Ran("hfgrow study", MACHINE, ("scratch-seed0",)),)


def planned(folder: Path, **changes: Any) -> Design:
    """The tiny study, of two seeds unless it is changed."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(tiny(folder, **{"seeds": [0, 1]} | changes)))
    return design(load_study(path), folder / "out")


def measured(job: StudyRun, losses: list[float], status: str = "done") -> Result:
    """Return a run whose loss was measured at equal distances, a base's share first."""
    base = sum(cost.tokens for cost in job.costs if cost.is_base)
    points = [Point(0, "end", 0, spent_at(job.costs, base), 5.0, 2.0)] if base else []
    for i, loss in enumerate(losses):
        spent = spent_at(job.costs, base + 512 * i)
        when = "inside" if i else "start"
        points.append(Point(job.as_target, when, i, spent, loss, loss / 2))
    return result_of(job, points, status)


def result_of(job: StudyRun, points: list[Point], status: str = "done") -> Result:
    return Result(
        job.arm or "",
        job.seed,
        status,
        "",
        tuple(points),
        job.first_grown,
        job.as_target,
        job.falls,
        1.0,
    )


def runs(plan: Design) -> list[Result]:
    losses = {"scratch": [7.0, 6.0, 5.0, 4.0, 3.5], "stack": [5.5, 4.0, 3.0, 2.5, 2.0]}
    return [
        measured(job, [loss + job.seed / 10 for loss in losses[job.arm or ""]]) for job in plan.arms
    ]


def text_of(plan: Design, found: list[Result], ran: Sequence[Ran] = RAN) -> str:
    summed = summary(plan, found, {"stack": 0.25})
    return report_page.markdown("T", blocks(plan, found, summed, [], ran, None), "plots")
