"""Speed-up at equal loss: by hand, and what holds for any curves."""

from math import exp, inf, log, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgrow.study.results import Curve, Gain, common_loss, cost_at, interval, speedup

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
