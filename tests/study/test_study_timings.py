"""Studies of growth timing, and the law that is fitted to them."""

import json
from math import log10
from pathlib import Path
from typing import Any

import pytest

from hfgrow.study.accounting import spent_at
from hfgrow.study.budget import TimingLaw
from hfgrow.study.design import Design, StudyRun
from hfgrow.study.results import Point, Result, timings
from tests.program import call_hfgrow
from tests.study.made_up import measured, planned, result_of

FACTORS = (1, 2, 4, 8)
LAW = TimingLaw(0.5, 40.0, -3.0, (1, 1), (1, 1), "")


def timing_study(folder: Path, **train: Any) -> Design:
    """Return a study whose arms differ in how long their base is trained."""
    return planned(
        folder,
        bases={f"d-{k}": {"config": {"num_hidden_layers": 1}, "factor": k} for k in FACTORS},
        arms={
            "scratch": {"scratch": "target"},
            **{
                f"d-{k}": {"base": f"d-{k}", "grow": {"operator": "stack", "g": 2}} for k in FACTORS
            },
        },
        train={"tokens": 20480, "learning_rate": 1e-2, "schedule": "constant", **train},
    )


def lawful(job: StudyRun) -> Result:
    """Return a run with its lowest loss where the law says, at every cost on the way."""
    base = sum(cost.tokens for cost in job.costs if cost.is_base)
    points = []
    for i in range(41):
        spent = spent_at(job.costs, base + 512 * i)
        loss = 5.0
        if base:
            best = LAW.base_tokens(job.costs[-1].num_parameters, spent.flops)
            loss = 2 + 0.1 * log10(base / best) ** 2
        points.append(Point(job.as_target, "inside" if i else "start", i, spent, loss, loss / 2))
    return result_of(job, points)


def test_timings_are_the_losses_of_each_base_at_budgets_that_all_reached(tmp_path: Path) -> None:
    plan = timing_study(tmp_path)
    found = timings(plan, [lawful(job) for job in plan.arms])
    totals = [
        sum(c.flops * c.tokens for c in job.costs) for job in plan.arms if job.arm != "scratch"
    ]
    assert [len(one["losses"]) for one in found] == [4] * 4
    assert found[0]["flops"] == min(totals)
    assert found[0]["parameters"] == plan.arms[0].costs[-1].num_parameters
    json.dumps(found)


def test_a_study_without_three_timings_has_none(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    losses = [5.5, 4.0, 3.0, 2.5, 2.0]
    assert timings(plan, [measured(job, losses) for job in plan.arms]) == []


def test_losses_under_a_falling_learning_rate_are_no_timings(tmp_path: Path) -> None:
    plan = timing_study(tmp_path, schedule="cosine")
    assert timings(plan, [lawful(job) for job in plan.arms]) == []


def test_a_run_that_is_not_finished_is_left_out(tmp_path: Path) -> None:
    plan = timing_study(tmp_path)
    found = timings(plan, [lawful(job) for job in plan.arms if job.arm != "d-8"])
    assert found
    assert [len(one["losses"]) for one in found] == [3] * len(found)


def test_the_law_is_fitted_to_studies_of_two_sizes(tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        plan = timing_study(tmp_path / name)
        document = timings(plan, [lawful(job) for job in plan.arms])
        if name == "large":
            for one in document:
                one["parameters"] = 4 * int(str(one["parameters"]))
                for loss in one["losses"]:
                    loss["base_tokens"] *= 2
        (tmp_path / name / "results.json").write_text(json.dumps({"timings": document}))
    words = ("budget", "--fit", "small/results.json", "--fit", "large/results.json", "--json")
    found = json.loads(call_hfgrow(*words, cwd=tmp_path).stdout)["fit"]
    assert len(found["points"]) + found["left_out"] == 8
    assert found["law"]["a"] == pytest.approx(LAW.a, abs=0.02)
    assert found["law"]["b"] == pytest.approx(LAW.b, rel=0.1)
