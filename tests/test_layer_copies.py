"""Operators that only copy layers: which ones and in which order, by the papers and as algebra."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.operators.stacking import append_top, interpolate, progressive, solar, stack
from hfgrow.plan.plan import GrowthPlan, connection_rate, seams
from tests.layer_plans import plan_of, sources


def test_stack_repeats_the_layers_in_order() -> None:
    assert sources(stack(plan_of(3), g=2)) == [0, 1, 2, 0, 1, 2]


def test_stack_ends_on_the_last_layers_by_default() -> None:
    expected = [*range(22), *range(14, 22)]
    assert sources(stack(plan_of(22), layers=30)) == expected


def test_a_remainder_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="--remainder goes with --layers"):
        stack(plan_of(22), g=2, remainder="head")


def test_stack_can_fill_up_with_the_first_layers() -> None:
    expected = [*range(22), *range(8)]
    assert sources(stack(plan_of(22), layers=30, remainder="head")) == expected


def test_interpolate_repeats_every_layer_in_place() -> None:
    assert sources(interpolate(plan_of(3), g=2)) == [0, 0, 1, 1, 2, 2]


def test_solar_leaves_out_the_layers_around_the_seam() -> None:
    expected = [*range(24), *range(8, 32)]
    assert sources(solar(plan_of(32), overlap=8)) == expected


@pytest.mark.parametrize(
    ("operator", "percent"), [(stack, 91.3), (interpolate, 30.4)], ids=["stack", "interpolate"]
)
def test_the_connection_rates_of_8_to_24_layers_are_the_papers(
    operator: Callable[..., GrowthPlan], percent: float
) -> None:
    assert round(100 * connection_rate(operator(plan_of(8), g=3).sources), 1) == percent


@given(st.integers(1, 40), st.integers(2, 5))
def test_every_layer_stands_g_times(num_layers: int, g: int) -> None:
    for operator in (stack, interpolate):
        found = sources(operator(plan_of(num_layers), g=g))
        assert sorted(found) == sorted([*range(num_layers)] * g)


@given(st.integers(1, 40), st.integers(1, 60), st.sampled_from(["tail", "head"]))
def test_stack_reaches_any_depth_above_the_base(num_layers: int, more: int, end: str) -> None:
    found = sources(stack(plan_of(num_layers), layers=num_layers + more, remainder=end))  # type: ignore[arg-type]
    assert len(found) == num_layers + more
    assert found[:num_layers] == [*range(num_layers)]
    assert found[-1] == (num_layers - 1 if end == "tail" else (more - 1) % num_layers)


@given(st.integers(1, 40), st.integers(1, 60))
def test_interpolate_never_steps_back(num_layers: int, more: int) -> None:
    found = sources(interpolate(plan_of(num_layers), layers=num_layers + more))
    assert found == sorted(found)
    assert set(found) == set(range(num_layers))


@given(st.integers(2, 6), st.integers(2, 4), st.integers(2, 4))
def test_two_stacks_are_one_stack(num_layers: int, first: int, second: int) -> None:
    twice = stack(stack(plan_of(num_layers), g=first), g=second)
    assert sources(twice) == sources(stack(plan_of(num_layers), g=first * second))
    assert [step.operator for step in twice.steps] == ["stack", "stack"]


@given(st.integers(1, 40), st.data())
def test_seams_and_connection_rate_agree(num_layers: int, data: st.DataObject) -> None:
    g = data.draw(st.integers(2, 4))
    sources = stack(plan_of(num_layers), g=g).sources
    found = [i * num_layers for i in range(1, g)]
    assert seams(sources) == found
    assert connection_rate(sources) == pytest.approx(1 - len(found) / (g * num_layers - 1))


@pytest.mark.parametrize("overlap", [-1, 2, 3, 10**30])
def test_an_overlap_that_leaves_no_growth_is_refused(overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap"):
        solar(plan_of(4), overlap=overlap)


@given(st.integers(1, 40), st.data())
def test_append_top_is_stack_up_to_twice_the_depth(num_layers: int, data: st.DataObject) -> None:
    target = data.draw(st.integers(num_layers + 1, 2 * num_layers))
    found = sources(append_top(plan_of(num_layers), layers=target))
    assert found == [*range(num_layers), *range(2 * num_layers - target, num_layers)]
    assert found == sources(stack(plan_of(num_layers), layers=target))


def test_append_top_points_to_stack_above_twice_the_depth() -> None:
    with pytest.raises(UsageError, match="at most doubles") as refusal:
        append_top(plan_of(4), layers=9)
    assert refusal.value.hint == "use stack: hfgrow stack MODEL --layers 9"


def test_progressive_repeats_the_only_layer() -> None:
    assert sources(progressive(plan_of(1), layers=5)) == [0] * 5
    assert sources(progressive(plan_of(1), g=5)) == [0] * 5


def test_progressive_points_to_stack_for_deeper_bases() -> None:
    with pytest.raises(UsageError, match="the base has 2") as refusal:
        progressive(plan_of(2), g=2)
    assert "hfgrow stack" in refusal.value.hint
