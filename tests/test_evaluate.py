"""Recipes computed row by row, against the same algebra written out with whole matrices."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgrow.checkpoint.compute.evaluate import Evaluator, normal, uniform
from hfgrow.plan.axes import FRESH, AxisMap, copied, identity
from hfgrow.plan.tensors import Blend, Fill, Fresh, Lift, Noise, Normal, Recipe, Stored
from tests.test_axes import source_lists

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


# Rows 5 of the key "hfgrow".
UNIFORM = [-23839, 30134, 18940, 15450, 10980, 32450]
NORMAL = [-1.6849278211593628, 0.35597217082977295, -0.6042197346687317]


def matrix(rows: int, columns: int, dtype: str = "F64") -> torch.Tensor:
    numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    return numbers.to(DTYPES[dtype])


def stored(tensor: torch.Tensor, name: str = "W") -> Stored:
    (dtype,) = (name for name, found in DTYPES.items() if found == tensor.dtype)
    return Stored("", name, 0, tuple(tensor.shape), dtype)


def evaluate(
    recipe: Recipe, tensors: dict[str, torch.Tensor], dtype: str = "F64", step: int = 0
) -> Any:
    evaluator = Evaluator(lambda leaf, start, stop: tensors[leaf.name][start:stop].clone())
    num_rows = recipe.shape[0]
    starts = range(0, num_rows, step or num_rows)
    parts = [
        evaluator.rows(recipe, at, min(at + (step or num_rows), num_rows), dtype) for at in starts
    ]
    return torch.cat(parts)


def as_matrix(axis_map: AxisMap, *, backward: bool) -> torch.Tensor:
    """P [size, base]: forward or backward factors."""
    found = torch.zeros(axis_map.size, axis_map.base, dtype=torch.float64)
    at = 0
    for span in axis_map.spans:
        for i in range(span.length):
            if span.start != FRESH:
                found[at, span.start + i] = span.backward if backward else span.forward
            at += 1
    return found


@given(source_lists(), source_lists(), st.integers(1, 7))
def test_a_lift_is_a_product_of_three_matrices(
    rows: tuple[int, list[int]], columns: tuple[int, list[int]], step: int
) -> None:
    row_map, column_map = copied(*rows, isometric=True), copied(*columns, isometric=True)
    weights = matrix(rows[0], columns[0])
    expected = as_matrix(row_map, backward=False) @ weights
    expected = expected @ as_matrix(column_map, backward=True).T
    found = evaluate(Lift(stored(weights), row_map, column_map), {"W": weights}, step=step)
    assert torch.allclose(found, expected, rtol=1e-14, atol=0)


@given(source_lists(), source_lists(), st.integers(1, 7), st.floats(0.01, 2))
def test_noise_cancels_in_what_the_copies_compute(
    rows: tuple[int, list[int]], columns: tuple[int, list[int]], step: int, amplitude: float
) -> None:
    row_map, column_map = copied(*rows), copied(*columns, isometric=True)
    weights = matrix(rows[0], columns[0])
    plain = Lift(stored(weights), row_map, column_map)
    noisy = Lift(stored(weights), row_map, column_map, noise=Noise("key", amplitude))
    difference = evaluate(noisy, {"W": weights}, step=step) - evaluate(plain, {"W": weights})
    lifted = as_matrix(column_map, backward=False)
    assert torch.allclose(difference @ lifted, torch.zeros(()).double(), atol=1e-13)
    copies = torch.tensor([columns[1].count(source) > 1 for source in columns[1]])
    fresh = torch.tensor([source == FRESH for source in columns[1]])
    assert not bool(difference[:, ~copies | fresh].any())
    kept = torch.tensor([source != FRESH for source in rows[1]])
    if bool((copies & ~fresh).any()):
        assert bool(difference[kept][:, copies & ~fresh].any())


def test_noise_has_the_amplitude_asked_for_in_units_of_its_row() -> None:
    weights = matrix(4, 4096) * torch.tensor([[1.0], [10.0], [0.1], [0.0]]).double()
    column_map = copied(4096, [*range(4096)] * 4)
    plain = Lift(stored(weights), identity(4), column_map)
    noisy = Lift(stored(weights), identity(4), column_map, noise=Noise("key", 0.5))
    difference = evaluate(noisy, {"W": weights}) - evaluate(plain, {"W": weights})
    # A quarter of the noise of four copies is taken away by the projection.
    expected = 0.5 * 0.25 * weights.square().mean(1).sqrt() * 0.75**0.5
    assert torch.allclose(difference.square().mean(1).sqrt(), expected, rtol=0.02)


@pytest.mark.parametrize("num_copies", [2, 3, 5])
def test_noise_spreads_evenly_over_all_that_cancels(num_copies: int) -> None:
    num_rows, num_sources = 2000, 50
    weights = torch.ones(num_rows, num_sources).double()
    column_map = copied(num_sources, [*range(num_sources)] * num_copies)
    noisy = Lift(stored(weights), identity(num_rows), column_map, noise=Noise("key", 1.0))
    noise = evaluate(noisy, {"W": weights}) * num_copies - 1
    found = (noise.T @ noise / num_rows).view(num_copies, num_sources, num_copies, num_sources)
    within = torch.eye(num_copies).double() - 1 / num_copies
    expected = torch.einsum("ac,bd->abcd", within, torch.eye(num_sources).double())
    assert float((found - expected).abs().max()) < 6 / num_rows**0.5
    by_source = found.diagonal(dim1=1, dim2=3).mean(-1)
    assert torch.allclose(by_source, within, atol=0.02)
    assert float(noise.mean(0).abs().max()) < 6 / num_rows**0.5


def test_fresh_rows_and_columns_have_the_spread_asked_for() -> None:
    weights = matrix(200, 300)
    row_map = copied(200, [*range(200), *[FRESH] * 200])
    column_map = copied(300, [*range(300), *[FRESH] * 300])
    fresh = Fresh("key", rows=0.1, columns=0.2, corner=0.3)
    found = evaluate(Lift(stored(weights), row_map, column_map, fresh=fresh), {"W": weights})
    assert torch.equal(found[:200, :300], weights)
    for block, std in (
        (found[200:, :300], 0.1),
        (found[:200, 300:], 0.2),
        (found[200:, 300:], 0.3),
    ):
        assert float(block.std()) == pytest.approx(std, rel=0.02)
        assert abs(float(block.mean())) < 0.02 * std * 3


def test_a_vector_holds_one_value_where_it_is_fresh() -> None:
    gains = torch.tensor([2.0, 3.0])
    lift = Lift(stored(gains), copied(2, [0, 1, FRESH, 0]), fresh=Fresh(value=1.0))
    assert evaluate(lift, {"W": gains}, "F32").tolist() == [2.0, 3.0, 1.0, 2.0]


def test_blends_fills_and_lifts_nest() -> None:
    weights = matrix(3, 2)
    lift = Lift(stored(weights), copied(3, [2, 1, 0, 0]), identity(2))
    blend = Blend(((0.5, lift), (2.0, Fill((4, 2), 3.0))))
    outer = Lift(blend, copied(4, [3, 3]), copied(2, [1, 0]))
    expected = 0.5 * weights[[0, 0]][:, [1, 0]] + 6
    assert torch.allclose(evaluate(outer, {"W": weights}), expected)


@given(source_lists(), source_lists(), st.sampled_from(["BF16", "F16"]))
@settings(max_examples=50)
def test_one_product_in_the_stored_dtype_rounds_as_in_float32(
    rows: tuple[int, list[int]], columns: tuple[int, list[int]], dtype: str
) -> None:
    weights = matrix(rows[0], columns[0], dtype)
    lift = Lift(stored(weights), copied(*rows), copied(*columns, isometric=True))
    found = evaluate(lift, {"W": weights}, dtype)
    assert found.dtype == DTYPES[dtype]
    assert torch.equal(found, evaluate(lift, {"W": weights}, "F32").to(DTYPES[dtype]))


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_what_is_random_does_not_depend_on_the_chunks(dtype: str) -> None:
    weights = matrix(64, 32, dtype)
    row_map = copied(64, [*range(64), *[FRESH] * 30, 5, 6])
    column_map = copied(32, [*range(32), *range(20), *[FRESH] * 9])
    fresh = Fresh("key", rows=0.1, columns=0.2, corner=0.3)
    lift = Lift(stored(weights), row_map, column_map, Noise("key", 0.3), fresh)
    recipe = Blend(((1.0, lift), (1.0, Normal(lift.shape, 0.5, "other"))))
    whole = evaluate(recipe, {"W": weights}, dtype)
    for step in (1, 3, 17, 50):
        assert torch.equal(evaluate(recipe, {"W": weights}, dtype, step), whole)


def test_the_numbers_of_a_key_never_change() -> None:
    """A change here makes every recorded growth with noise come out different."""
    assert uniform("hfgrow", 5, 6, 6).tolist() == [UNIFORM]
    assert normal("hfgrow", 5, 6, 3).tolist() == [NORMAL]


def test_normal_numbers_are_nearly_normal() -> None:
    numbers = normal("key", 0, 1000, 1000).double()
    assert float(numbers.mean()) == pytest.approx(0, abs=0.005)
    assert float(numbers.std()) == pytest.approx(1, abs=0.005)
    assert float(numbers.abs().max()) < 3.47
    kurtosis = float(numbers.pow(4).mean() / numbers.square().mean() ** 2)
    assert kurtosis == pytest.approx(2.7, abs=0.02)
