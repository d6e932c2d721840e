"""Averaged layers: means of neighbours, spread evenly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.errors import UsageError
from hfgrow.plan.operators.inserting import average
from hfgrow.plan.tensors import Blend
from tests.layer_plans import NORM, OUT, QUERY, modes, plan_of, recipe, stored


@pytest.mark.parametrize(
    ("num_layers", "target", "expected"),
    [
        (4, None, "cacacac"),
        (4, 7, "cacacac"),
        (4, 5, "ccacc"),
        (4, 6, "caccac"),
        (7, 9, "ccacccacc"),
        (2, 3, "cac"),
    ],
)
def test_average_spreads_the_means_evenly(
    num_layers: int, target: int | None, expected: str
) -> None:
    assert modes(average(plan_of(num_layers), layers=target)) == expected


def test_an_average_is_half_of_the_layer_below_and_half_of_that_above() -> None:
    grown = average(plan_of(3), layers=4)
    assert [source.layer for source in grown.layer_map] == [0, 1, 1, 2]
    for role in (NORM, QUERY, OUT):
        assert recipe(grown, 2, role) == Blend(((0.5, stored(1, role)), (0.5, stored(2, role))))


@given(st.integers(2, 60), st.data())
def test_average_keeps_every_layer_and_puts_means_only_between_them(
    num_layers: int, data: st.DataObject
) -> None:
    target = data.draw(st.integers(num_layers + 1, 2 * num_layers - 1))
    grown = average(plan_of(num_layers), layers=target)
    found = modes(grown)
    assert found.count("c") == num_layers
    assert found.count("a") == target - num_layers
    assert found[0] == found[-1] == "c"
    assert "aa" not in found
    gaps = [len(run) for run in found.split("a")][1:-1]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize("layers", [-1, 0, 4, 8, 10**30])
def test_more_means_than_gaps_are_refused(layers: int) -> None:
    with pytest.raises(UsageError, match="must be from 5 to 7"):
        average(plan_of(4), layers=layers)


def test_a_single_layer_has_no_neighbour_to_average_with() -> None:
    with pytest.raises(UsageError, match="at least 2 layers"):
        average(plan_of(1))
