"""Aligned layers: where they stand, what order rows come in, and that they add nothing."""

from pathlib import Path

import pytest
import torch

from hfgrow.checkpoint.compute.alignment import aligned
from hfgrow.checkpoint.compute.state_dict import evaluated
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.operators.inserting import opt_deus
from hfgrow.plan.tensors import Aligned, Blend, Fill, gradient
from tests.checkpoint.test_compute import evaluate
from tests.checkpoints import MakeCheckpoint, tensors_of
from tests.layer_plans import NORM, OUT, QUERY, plan_of, recipe, stored
from tests.plan.test_inserting import recipes
from tests.program import call_hfgrow


@pytest.mark.parametrize(
    ("num_layers", "target", "expected"),
    [(4, None, [1, 2]), (5, None, [2, 3]), (2, None, [0]), (4, 5, [2]), (4, 7, [0, 1, 2])],
)
def test_opt_deus_fills_the_topmost_gaps(
    num_layers: int, target: int | None, expected: list[int]
) -> None:
    grown = opt_deus(plan_of(num_layers), layers=target)
    assert [s.layer for s in grown.layer_map if s.mode == "aligned"] == expected
    assert [s.layer for s in grown.layer_map if s.mode == "copy"] == [*range(num_layers)]
    assert [s.layer for s in grown.layer_map] == sorted(s.layer for s in grown.layer_map)


def test_an_aligned_layer_adds_nothing_and_only_its_neurons_are_put_in_order() -> None:
    grown = opt_deus(plan_of(3), layers=4)
    assert grown.preserves_function
    assert recipe(grown, 2, OUT) == Fill((8, 8), 0.0)
    assert recipe(grown, 2, QUERY) == Aligned(stored(1, QUERY), stored(2, QUERY), (8,), 0.06)
    assert recipe(grown, 2, NORM) == Blend(((0.5, stored(1, NORM)), (0.5, stored(2, NORM))))


def test_parts_of_fused_matrices_are_aligned_apart(make_checkpoint: MakeCheckpoint) -> None:
    grown = opt_deus(read(LocalFolder(make_checkpoint("phi3"))), layers=5)
    parts = {
        name.rpartition("layers.3.")[2]: tensor.recipe.parts
        for name, tensor in grown.tensors.items()
        if isinstance(tensor.recipe, Aligned)
    }
    assert parts == {
        "self_attn.qkv_proj.weight": (32, 16, 16),
        "mlp.gate_up_proj.weight": (48, 48),
    }


def test_what_is_known_by_its_number_in_every_layer_stays_where_it_is(
    make_checkpoint: MakeCheckpoint,
) -> None:
    experts = opt_deus(read(LocalFolder(make_checkpoint("qwen3_moe"))), layers=5)
    assert isinstance(experts.tensors["model.layers.3.mlp.gate.weight"].recipe, Blend)
    norms_behind = opt_deus(read(LocalFolder(make_checkpoint("olmo2"))), layers=5)
    assert isinstance(norms_behind.tensors["model.layers.3.mlp.down_proj.weight"].recipe, Blend)


@pytest.mark.parametrize("layers", [4, 8])
def test_more_aligned_layers_than_gaps_are_refused(layers: int) -> None:
    with pytest.raises(
        UsageError,
        match=f"^layers must be from 5 to 7, one layer in a gap between 4, not {layers}$",
    ):
        opt_deus(plan_of(4), layers=layers)


def test_a_single_layer_has_no_neighbour_to_be_aligned_with() -> None:
    with pytest.raises(UsageError, match=r"^opt-deus needs at least 2 layers, the base has 1$"):
        opt_deus(plan_of(1))


@pytest.mark.parametrize("value", [0, 0.009, 101, float("nan"), float("inf")])
def test_a_regularization_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match=r"^regularization must be from 0\.01 to 100, not "):
        opt_deus(plan_of(2), regularization=value)


def rows_of(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_same_neurons_in_another_order_are_put_in_that_order() -> None:
    numbers = rows_of(40, 24, seed=0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(aligned(numbers, numbers[order], 0.06), numbers[order], atol=1e-12)


def test_every_neuron_is_carried_as_a_whole_and_each_aligned_one_is_a_mean() -> None:
    numbers, like = rows_of(30, 16, seed=0), rows_of(30, 16, seed=1)
    found = aligned(numbers, like, 0.5)
    assert torch.allclose(found.sum(0), numbers.sum(0), atol=1e-9)
    assert found.amax(0).le(numbers.amax(0)).all()
    assert found.amin(0).ge(numbers.amin(0)).all()
    assert (found - like).norm() < (numbers - like).norm()


def test_much_regularization_carries_the_mean_of_all_neurons_everywhere() -> None:
    numbers, like = rows_of(30, 16, seed=0), rows_of(30, 16, seed=1)
    assert torch.allclose(aligned(numbers, like, 1e4), numbers.mean(0).expand(30, 16), atol=1e-2)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 100.0])
@pytest.mark.parametrize("regularization", [0.01, 100.0])
def test_neurons_of_any_size_are_aligned_to_numbers(scale: float, regularization: float) -> None:
    numbers, like = rows_of(30, 16, seed=0) * scale, rows_of(30, 16, seed=1) * scale
    assert aligned(numbers, like, regularization).isfinite().all()


def test_an_aligned_matrix_is_the_mean_of_both_in_the_order_of_the_upper_one() -> None:
    below = rows_of(12, 8, seed=0).float()
    matrices = {"below": below, "above": below.flip(0) + 0.01}
    lower, upper = recipes(matrices)
    recipe = Aligned(lower, upper, (12,), 0.06)
    found = evaluate(recipe, matrices)
    assert torch.allclose(found.float(), below.flip(0) + 0.005, atol=1e-6)
    assert torch.equal(found, evaluate(recipe, matrices, step=5))
    assert gradient(recipe) == recipe.mean


def test_aligned_layers_are_written_proven_and_made_again(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished = call_hfgrow("opt-deus", base, "--out", out)
    assert finished.returncode == 0, finished.stderr
    in_memory = evaluated(opt_deus(read(LocalFolder(base))).tensors, tensors_of(base))
    written = tensors_of(out)
    assert written.keys() == in_memory.keys()
    assert all(torch.equal(written[name], in_memory[name]) for name in written)
    for command in ("verify", "reproduce"):
        finished = call_hfgrow(command, out)
        assert finished.returncode == 0, finished.stderr
