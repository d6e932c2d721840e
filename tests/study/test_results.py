"""Speed-up at equal loss: by hand, and what holds for any curves.

Studies of growth timing, and the law that is fitted to them.
"""

import json
from math import exp, inf, log, log10, sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgrow.study.accounting import spent_at
from hfgrow.study.budget import TimingLaw
from hfgrow.study.design import Design, StudyRun
from hfgrow.study.results import (
    Curve,
    Gain,
    Point,
    Result,
    common_loss,
    cost_at,
    interval,
    speedup,
    timings,
)
from tests.program import call_hfgrow
from tests.study.made_up import measured, planned, result_of

FALLING = [(10.0, 5.0), (100.0, 4.0), (1000.0, 3.0)]


def gain(scratch: Curve, grown: Curve, loss: float) -> float:
    found = speedup(scratch, grown, loss)
    assert found is not None
    return found.value


@st.composite
def curves(draw: st.DrawFn) -> list[tuple[float, float]]:
    steps = draw(st.lists(st.floats(0.01, 3), min_size=2, max_size=12))
    losses = draw(st.lists(st.floats(1, 9), min_size=len(steps), max_size=len(steps)))
    costs, at = [], 1.0
    for step in steps:
        at += step
        costs.append(at)
    return list(zip(costs, losses, strict=True))


def test_between_evaluations_the_loss_is_linear_in_the_logarithm_of_the_cost() -> None:
    assert cost_at(FALLING, 4.5) == pytest.approx(sqrt(10 * 100))
    assert cost_at(FALLING, 3.25) == pytest.approx(exp(log(100) + 0.75 * log(10)))


def test_a_loss_that_was_never_reached_has_no_cost() -> None:
    assert cost_at(FALLING, 2.9) is None
    assert cost_at([], 2.9) is None


def test_a_cost_of_nothing_has_no_logarithm() -> None:
    assert cost_at([(0.0, 6.0), (10.0, 5.0)], 5.5) == pytest.approx(5.0)


def test_the_first_time_counts_when_the_loss_rises_again() -> None:
    assert cost_at([(1.0, 5.0), (2.0, 4.0), (3.0, 4.5), (4.0, 3.5)], 4.0) == pytest.approx(2.0)


def test_the_papers_headline_is_a_ratio_less_one() -> None:
    """300B tokens from scratch against 194B are 54.6 %."""
    scratch, grown = [(1.0, 9.0), (300.0, 2.0)], [(1.0, 9.0), (194.0, 2.0)]
    assert gain(scratch, grown, 2.0) == pytest.approx(0.546, abs=1e-3)


def test_a_loss_that_a_run_had_when_it_had_grown_bounds_the_speedup() -> None:
    grown = [(20.0, 3.5), (30.0, 3.0)]
    assert common_loss(FALLING, grown) == 3.0
    found = speedup(FALLING, grown, 4.0)
    assert found is not None
    assert found.value == pytest.approx(100 / 20 - 1)
    assert found.is_bound
    assert speedup(FALLING, [(0.0, 3.5), (30.0, 3.0)], 4.0) == Gain(inf, is_bound=True)


def test_equal_losses_are_those_of_the_one_that_came_less_far() -> None:
    assert common_loss(FALLING, [(1.0, 6.0), (2.0, 3.5)]) == 3.5
    assert common_loss(FALLING, [(1.0, 5.5), (2.0, 5.2)]) is None
    assert common_loss(FALLING, []) is None


@given(curves(), st.floats(0.1, 10))
def test_a_cost_lies_on_the_curve(curve: list[tuple[float, float]], loss: float) -> None:
    cost = cost_at(curve, loss)
    reached = min(low for _, low in curve) <= loss
    assert (cost is not None) == reached
    if cost is not None:
        assert curve[0][0] <= cost <= curve[-1][0] * (1 + 1e-9)


@given(curves(), st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_lower_loss_never_costs_less(
    curve: list[tuple[float, float]], one: float, other: float
) -> None:
    high, low = cost_at(curve, max(one, other)), cost_at(curve, min(one, other))
    if high is not None and low is not None:
        assert high <= low * (1 + 1e-9)


@given(curves(), st.floats(1.1, 9))
def test_a_curve_at_k_times_the_cost_is_slower_by_k(
    curve: list[tuple[float, float]], k: float
) -> None:
    slow = [(cost * k, loss) for cost, loss in curve]
    loss = min(low for _, low in curve)
    assert gain(slow, curve, loss) == pytest.approx(k - 1)
    assert gain(curve, curve, loss) == pytest.approx(0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=5, max_size=9))
def test_an_interval_holds_the_mean_and_lies_within_the_values(values: list[float]) -> None:
    found = interval(values)
    assert found is not None
    low, high = found
    mean = sum(values) / len(values)
    assert min(values) - 1e-9 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= max(values) + 1e-9
    assert interval(values) == found


def test_few_seeds_have_no_interval() -> None:
    assert interval([1.0]) is None
    assert interval([1.0, 2.0, 3.0, 4.0]) is None


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
