"""Zero copies and random layers: where the new ones stand, and what is in them.

Averaged layers: means of neighbours, spread evenly.

Layers predicted between others: what is learnt, the same every time, and what is refused.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.checkpoint.compute.products import trained
from hfgrow.checkpoint.compute.recipe_rows import Evaluator
from hfgrow.checkpoint.compute.state_dict import evaluated
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, UsageError
from hfgrow.plan.axes import copied, identity
from hfgrow.plan.operators.inserting import average, lesa, random_depth, zero_depth
from hfgrow.plan.plan import GrowthPlan, LayerSource, TensorPlan
from hfgrow.plan.tensors import (
    Blend,
    Fill,
    Lift,
    Normal,
    Predicted,
    Recipe,
    gradient,
    leaves,
    predictor_of,
)
from tests.checkpoint.test_compute import evaluate, stored_tensor
from tests.checkpoints import MakeCheckpoint, load, logits, tensors_of
from tests.families import EVERY_FAMILY
from tests.layer_plans import NORM, OUT, QUERY, modes, plan_of, recipe, sources, stored
from tests.program import call_hfgrow


def test_zero_depth_puts_the_zero_copies_behind_the_layer_they_copy() -> None:
    grown = zero_depth(plan_of(4), layers=7)
    assert (sources(grown), modes(grown)) == ([0, 0, 1, 1, 2, 2, 3], "czczczc")
    assert recipe(grown, 1, QUERY) == stored(0, QUERY)
    assert recipe(grown, 1, OUT) == Fill((8, 8), 0.0)


def test_zero_depth_adds_a_block_behind_each_group_of_layers_as_llama_pro_does() -> None:
    grown = zero_depth(plan_of(6), every=3)
    assert (sources(grown), modes(grown)) == ([0, 1, 2, 2, 3, 4, 5, 5], "ccczcccz")


def test_a_zero_copy_of_every_layer_is_a_growth_factor_of_2() -> None:
    by_group, by_factor = zero_depth(plan_of(5), every=1), zero_depth(plan_of(5), g=2)
    assert (by_group.tensors, by_group.layer_map) == (by_factor.tensors, by_factor.layer_map)


@given(st.integers(1, 40), st.integers(1, 60))
def test_zero_depth_copies_every_layer_once_and_in_order(num_layers: int, more: int) -> None:
    grown = zero_depth(plan_of(num_layers), layers=num_layers + more)
    copies = [
        layer for layer, mode in zip(sources(grown), modes(grown), strict=True) if mode == "c"
    ]
    assert copies == [*range(num_layers)]
    assert modes(grown).count("z") == more


@given(st.integers(1, 12), st.integers(1, 12))
def test_zero_depth_adds_one_block_for_each_group(every: int, num_groups: int) -> None:
    grown = zero_depth(plan_of(every * num_groups), every=every)
    assert modes(grown) == ("c" * every + "z") * num_groups
    assert sources(grown) == sorted(sources(grown))


def test_random_depth_puts_fresh_layers_on_top() -> None:
    grown = random_depth(plan_of(2), layers=4, mask=0.5)
    assert [source.layer for source in grown.layer_map] == [0, 1, 1, 1]
    assert modes(grown) == "ccrr"
    assert recipe(grown, 1, QUERY) == stored(1, QUERY)
    assert recipe(grown, 2, NORM) == Fill((8,), 1.0)
    query, out = recipe(grown, 2, QUERY), recipe(grown, 2, OUT)
    assert isinstance(query, Normal)
    assert isinstance(out, Normal)
    assert query.std == pytest.approx((2 / (5 * 8)) ** 0.5)
    assert out.std == pytest.approx(0.5 / (8**0.5 * 4))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_fresh_layers_depend_on_the_seed_and_on_nothing_else(seed: int, other: int) -> None:
    grown = random_depth(plan_of(2), g=3, seed=seed, mask=1)
    assert grown.tensors == random_depth(plan_of(2), layers=6, seed=seed, mask=1.0).tensors
    changed = random_depth(plan_of(2), g=3, seed=other, mask=1)
    assert (grown.tensors == changed.tensors) == (seed == other)


@given(st.integers(1, 4), st.integers(2, 3), st.integers(2, 3))
def test_no_two_fresh_tensors_are_drawn_alike(num_layers: int, first: int, second: int) -> None:
    grown = random_depth(random_depth(plan_of(num_layers), g=first, mask=1), g=second, mask=1)
    recipes = [tensor.recipe for tensor in grown.tensors.values()]
    keys = [found.key for found in recipes if isinstance(found, Normal)]
    assert len(set(keys)) == len(keys) == 2 * num_layers * (first * second - 1)


@pytest.mark.parametrize("mask", [0, 0.0, -0.0])
def test_a_mask_of_0_preserves_the_function_and_writes_plain_zeros(mask: float) -> None:
    grown = random_depth(plan_of(2), g=2, mask=mask)
    assert grown.preserves_function
    assert repr(recipe(grown, 2, OUT)) == repr(Fill((8, 8), 0.0))
    assert isinstance(recipe(grown, 2, QUERY), Normal)


@pytest.mark.parametrize("mask", [5e-324, 0.1, 1])
def test_any_other_mask_promises_nothing(mask: float) -> None:
    assert not random_depth(plan_of(2), g=2, mask=mask).preserves_function


@pytest.mark.parametrize("mask", [float("nan"), float("inf"), -float("inf"), -0.1, 1.1, 10**400])
def test_a_mask_out_of_range_is_refused(mask: float) -> None:
    with pytest.raises(UsageError, match="mask must be from 0 to 1"):
        random_depth(plan_of(2), g=2, mask=mask)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**400])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="seed must be from 0"):
        random_depth(plan_of(2), g=2, seed=seed)


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


Matrices = dict[str, torch.Tensor]


def curve(angle: float, num_layers: int = 24, shape: tuple[int, int] = (48, 32)) -> Matrices:
    """Matrices on an ellipse, `angle` apart."""
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.randn(shape, generator=generator) for _ in range(2))
    return {
        str(i): math.cos(angle * i) * one + math.sin(angle * i) * other for i in range(num_layers)
    }


def recipes(matrices: Matrices) -> tuple[Recipe, ...]:
    return tuple(stored_tensor(matrix, name) for name, matrix in matrices.items())


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_a_layer_on_a_curve_is_told_from_its_neighbours_better_than_by_mean_or_copy() -> None:
    matrices = curve(0.8)
    predictor = trained(recipes(matrices), 0, lambda recipe: matrices[next(leaves(recipe)).name])
    for i in range(1, len(matrices) - 1):
        below, here, above = (matrices[str(i + side)] for side in (-1, 0, 1))
        error = distance(predictor.between(below, above), here)
        assert error < 0.5 * distance((below + above) / 2, here)
        assert error < 0.25 * min(distance(below, here), distance(above, here))


def test_an_inserted_layer_points_where_the_curve_goes_and_too_far() -> None:
    matrices, halfway = curve(0.8), curve(0.4, 48)
    found = evaluate(Predicted(recipes(matrices), 11, 0), matrices)
    wanted = halfway["23"]
    assert float((found * wanted).sum() / found.norm() / wanted.norm()) > 0.97
    assert 1.1 < float(found.norm() / wanted.norm()) < 1.5


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (5, 1), (1, 5)])
def test_a_matrix_of_any_shape_is_predicted_from_three_layers(shape: tuple[int, int]) -> None:
    matrices = curve(0.5, 3, shape)
    found = evaluate(Predicted(recipes(matrices), 1, 0), matrices)
    assert found.shape == shape
    assert bool(found.isfinite().all())


def test_layers_of_zeros_predict_zeros() -> None:
    matrices = {str(i): torch.zeros(4, 6) for i in range(3)}
    assert not evaluate(Predicted(recipes(matrices), 0, 0), matrices).any()


def test_numbers_that_are_not_finite_are_refused_by_name() -> None:
    matrices = curve(0.5, 3, (4, 6))
    matrices["1"][2, 2] = torch.inf
    with pytest.raises(ModelError, match="not finite"):
        evaluate(Predicted(recipes(matrices), 0, 0), matrices)


@pytest.mark.parametrize("step", [1, 7, 30])
def test_chunks_make_no_difference(step: int) -> None:
    matrices = curve(0.5, 4, (40, 16))
    recipe = Predicted(recipes(matrices), 2, 0)
    assert torch.equal(evaluate(recipe, matrices), evaluate(recipe, matrices, step=step))


def test_the_seed_is_all_that_chooses() -> None:
    matrices = curve(0.5, 4, (16, 16))
    before = torch.random.get_rng_state()
    one, same, other = (
        evaluate(Predicted(recipes(matrices), 1, seed), matrices) for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(one, evaluate(Predicted(recipes(matrices), 1, 3), matrices))


def test_a_sum_and_a_wider_matrix_of_predictions_are_sums_and_wider() -> None:
    matrices = curve(0.5, 4, (6, 8))
    plain = Predicted(recipes(matrices), 1, 0)
    numbers = evaluate(plain, matrices)
    blend = Blend(((0.5, plain), (0.25, stored_tensor(matrices["0"], "0"))))
    assert torch.allclose(evaluate(blend, matrices), 0.5 * numbers + 0.25 * matrices["0"])
    wider = Lift(plain, copied(6, [*range(6), *range(6)]), identity(8))
    assert torch.equal(evaluate(wider, matrices, step=5), numbers.repeat(2, 1))
    assert predictor_of(blend) == predictor_of(wider) == "0"


def test_a_predicted_layer_may_be_predicted_from() -> None:
    matrices = curve(0.5, 4, (6, 8))
    once = Predicted(recipes(matrices), 1, 0)
    twice = Predicted((*recipes(matrices)[:2], once, *recipes(matrices)[2:]), 1, 0)
    assert bool(evaluate(twice, matrices).isfinite().all())
    assert len(list(leaves(twice))) == 8


def test_neighbours_share_what_was_learnt() -> None:
    matrices = curve(0.5, 6, (6, 8))
    layers = recipes(matrices)
    read: list[str] = []

    def rows(leaf: Any, start: int, stop: int) -> Any:
        read.append(leaf.name)
        return matrices[leaf.name][start:stop].numpy().copy()

    evaluator = Evaluator(rows)
    evaluator.rows(Predicted(layers, 0, 0), 0, 6, "F32")
    read.clear()
    for after in range(1, 5):
        evaluator.rows(Predicted(layers, after, 0), 0, 6, "F32")
    assert read == ["1", "2", "2", "3", "3", "4", "4", "5"]


def test_torch_predicts_on_one_thread_of_each_core_and_has_its_own_again() -> None:
    matrices = curve(0.5, 6, (6, 8))
    plans = {str(i): TensorPlan("F32", Predicted(recipes(matrices), i, 0)) for i in range(5)}
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = evaluated(plans, matrices)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
    for name, plan in plans.items():
        assert torch.equal(found[name], evaluate(plan.recipe, matrices, "F32"))


def grown_plan(folder: Path, layers: int | None = None) -> GrowthPlan:
    return lesa(read(LocalFolder(folder)), layers=layers)


@pytest.mark.parametrize("model_type", EVERY_FAMILY)
def test_matrices_are_predicted_and_vectors_are_means(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint(model_type)))
    grown, means = lesa(base, layers=5, seed=7), average(base, layers=5)
    assert [s.layer for s in grown.layer_map] == [0, 1, 1, 2, 3]
    assert grown.layer_map[2] == LayerSource(1, "predicted")
    assert grown.config == means.config
    for name, tensor in grown.tensors.items():
        assert tensor.shape == means.tensors[name].shape
        if isinstance(tensor.recipe, Predicted):
            assert len(tensor.shape) == 2
            assert (tensor.recipe.after, tensor.recipe.seed) == (1, 7)
            assert tensor.recipe.mean == means.tensors[name].recipe
        else:
            assert tensor == means.tensors[name]
    num_matrices = sum(len(t.shape) == 2 for n, t in base.tensors.items() if ".layers.0." in n)
    assert sum(isinstance(t.recipe, Predicted) for t in grown.tensors.values()) == num_matrices


def test_the_gradient_of_a_predicted_matrix_is_the_mean_of_its_neighbours() -> None:
    recipe = Predicted(recipes(curve(0.5, 3, (4, 4))), 1, 0)
    assert gradient(recipe) == recipe.mean


def test_the_program_writes_the_same_bytes_twice_and_proves_them(
    base: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        finished = call_hfgrow(
            "lesa", base, "--layers", "6", "--seed", "5", "--out", tmp_path / name
        )
        assert finished.returncode == 0, finished.stderr
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    in_memory = evaluated(lesa(read(LocalFolder(base)), layers=6, seed=5).tensors, tensors_of(base))
    written = tensors_of(tmp_path / "one")
    assert written.keys() == in_memory.keys()
    assert all(torch.equal(written[name], in_memory[name]) for name in written)
    for command in ("verify", "reproduce"):
        finished = call_hfgrow(command, tmp_path / "one")
        assert finished.returncode == 0, finished.stderr


def test_shards_hold_the_same_numbers(base: Path, tmp_path: Path) -> None:
    for name, options in (("one", ()), ("many", ("--max-shard-size", "60KB"))):
        finished = call_hfgrow("lesa", base, *options, "--out", tmp_path / name)
        assert finished.returncode == 0, finished.stderr
    one, many = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "many")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_a_tampered_prediction_is_found_and_the_machine_is_named(
    base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    assert call_hfgrow("lesa", base, "--out", tmp_path / "out").returncode == 0
    tensors = tensors_of(tmp_path / "out")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    finished = call_hfgrow("verify", tmp_path / "out")
    assert finished.returncode
    assert "another machine or another version of torch" in finished.stderr


def test_the_grown_model_loads_and_computes_something_else(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call_hfgrow("lesa", base, "--out", out).returncode == 0
    model, report = load(out)
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert model.config.num_hidden_layers == 7
    found, before = logits(model), logits(load(base)[0])
    assert bool(found.isfinite().all())
    assert not torch.allclose(found, before, atol=1e-3)
    assert not grown_plan(base).preserves_function


@pytest.mark.parametrize("layers", [-1, 0, 4, 8, 10**30])
def test_more_layers_than_gaps_are_refused(base: Path, layers: int) -> None:
    with pytest.raises(UsageError, match="must be from 5 to 7"):
        grown_plan(base, layers)


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_of_lesa_out_of_range_is_refused(base: Path, seed: int) -> None:
    with pytest.raises(UsageError, match=r"^seed must be from 0"):
        lesa(read(LocalFolder(base)), seed=seed)


@pytest.mark.parametrize("num_hidden_layers", [1, 2])
def test_two_layers_teach_nothing(num_hidden_layers: int, make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint(num_hidden_layers=num_hidden_layers)
    with pytest.raises(UsageError, match="at least 3 layers"):
        grown_plan(folder)
