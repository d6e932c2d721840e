"""Gradients of grown models from those of the base: maps against backward passes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.checkpoint.compute.moments import grow_optimizer_state
from hfgrow.checkpoint.compute.state_dict import evaluated
from hfgrow.growth.memory import plan_state_dict
from hfgrow.plan.plan import GrowthPlan, TensorPlan
from hfgrow.plan.tensors import Recipe, gradient, linear, squared
from tests.checkpoints import MakeCheckpoint, load
from tests.gradients import FRACTION, Steps, Tensors, gradients, grown_model
from tests.growths import with_exact_norms
from tests.sampling import sampled

EVEN: dict[str, object] = {"even": True, "noise": 0.0}
EXACT: dict[str, Steps] = {
    "hyperclone": [("hyperclone", {"g": 2})],
    "hyperclone x3": [("hyperclone", {"g": 3})],
    "even split": [("split", {"g": 2, **EVEN})],
    "even split to fractions": [("split", {**FRACTION, **EVEN})],
    "uneven neurons and heads": [("split", {"ffn": 52, "heads": 8, "kv_heads": 4, "noise": 0.0})],
    "net2net": [("net2net", {**FRACTION, "noise": 0.0})],
    "lemon": [("lemon", {"hidden_size": 40, "ffn": 60})],
    "staged": [("staged", {"g": 2, "noise": 0.0})],
    "zero-width": [("zero-width", {"g": 2})],
    "zero-width of the paper": [("zero-width", {"g": 2, "style": "paper"})],
    "head-dim": [("head-dim", {"factor": 2})],
    "twice": [("hyperclone", {"g": 2}), ("head-dim", {"factor": 2})],
}
BASES = [
    pytest.param("llama", False),
    pytest.param("llama", True),
    pytest.param("qwen3", False),
    pytest.param("qwen3", True),
    pytest.param("gemma2", True),
]
WRITERS = ("embed_tokens", "o_proj", "down_proj")
KEY_VALUES = ("k_proj", "v_proj")


def of_recipes(
    plan: GrowthPlan, recipe_of: Callable[[Recipe], Recipe], tensors: Mapping[str, Any]
) -> Tensors:
    plans = {name: TensorPlan("F64", recipe_of(t.recipe)) for name, t in plan.tensors.items()}
    return evaluated(plans, tensors)


def squares(tensors: Tensors) -> Tensors:
    return {name: tensor.square() for name, tensor in tensors.items()}


def worst(found: Tensors, expected: Tensors, sourced: Tensors) -> float:
    """The largest relative error of a tensor, over the entries that have a source."""
    errors = []
    for name, mask in sourced.items():
        size = (expected[name] * mask).norm()
        if size:
            errors.append(float(((found[name] - expected[name]) * mask).norm() / size))
    return max(errors)


class Pair:
    """A base and a grown model in float64, and which entries of the grown one have a source."""

    def __init__(self, folder: Path, steps: Steps) -> None:
        base = load(folder)[0]
        self.plan = plan_state_dict(base, steps)
        self.grown = grown_model(base, steps)
        self.base = with_exact_norms(base)
        ones = {name: torch.ones_like(p) for name, p in base.named_parameters()}
        found = of_recipes(self.plan, gradient, ones)
        self.sourced = {name: tensor != 0 for name, tensor in found.items()}

    def mapped(self, base: Tensors) -> Tensors:
        return of_recipes(self.plan, gradient, base)


@pytest.mark.parametrize(("model_type", "tied", "growth"), sampled(BASES, EXACT, one_in=3))
def test_gradients_follow_the_maps(
    growth: str, model_type: str, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    pair = Pair(make_checkpoint(model_type, tied=tied, dtype="float64"), EXACT[growth])
    error = worst(pair.mapped(gradients(pair.base)), gradients(pair.grown), pair.sourced)
    # The class of Gemma 2 computes the softmax in float32, where shares of 1/3 are rounded.
    assert error < (1e-6 if model_type == "gemma2" else 1e-12)


@pytest.mark.parametrize("growth", ["hyperclone", "net2net", "staged", "zero-width", "head-dim"])
def test_squares_of_gradients_follow_the_squared_maps(
    growth: str, make_checkpoint: MakeCheckpoint
) -> None:
    pair = Pair(make_checkpoint("qwen3", tied=True, dtype="float64"), EXACT[growth])
    examples = [slice(0, 1), slice(1, 2)]
    base, grown = (
        [squares(gradients(model, rows)) for rows in examples] for model in (pair.base, pair.grown)
    )
    means = [{name: (one[name] + two[name]) / 2 for name in one} for one, two in (base, grown)]
    found = of_recipes(pair.plan, lambda recipe: squared(gradient(recipe)), means[0])
    assert worst(found, means[1], pair.sourced) < 1e-12


@pytest.mark.parametrize("growth", EXACT)
def test_the_momentum_of_muon_grows_into_that_of_the_grown_gradients(
    growth: str, make_checkpoint: MakeCheckpoint
) -> None:
    """At rest, so that both models see the gradients of the same function, text after text."""
    pair = Pair(make_checkpoint("qwen3", tied=True, dtype="float64"), EXACT[growth])
    base, expected = (momentum_of(model) for model in (pair.base, pair.grown))
    found = grow_optimizer_state(pair.plan, base, "copy")
    assert found.keys() == expected.keys()
    there = {name: entry["momentum_buffer"] for name, entry in expected.items()}
    kept = {name: entry["momentum_buffer"] for name, entry in found.items()}
    assert worst(kept, there, {name: pair.sourced[name] for name in there}) < 1e-12


def momentum_of(model: Any) -> dict[str, dict[str, Any]]:
    """The state of torch's Muon after three texts."""
    matrices = {n: p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n}
    optimizer: Any = torch.optim.Muon(matrices.values(), lr=0.0, weight_decay=0.0)
    for text in (slice(0, 1), slice(1, 2), slice(0, 2)):
        gradients(model, text)
        optimizer.step()
    return {name: optimizer.state[parameter] for name, parameter in matrices.items()}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_uneven_shares_of_the_stream_are_exact_but_for_what_writes_it(
    tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    steps: Steps = [("split", {"g": 2, "noise": 0.0})]
    pair = Pair(make_checkpoint(tied=tied, dtype="float64"), steps)
    found, expected = pair.mapped(gradients(pair.base)), gradients(pair.grown)
    readers = {n: m for n, m in pair.sourced.items() if not any(word in n for word in WRITERS)}
    assert worst(found, expected, readers) < 1e-12
    assert 1e-2 < worst(found, expected, pair.sourced) < 0.5


def test_key_values_that_part_their_queries_are_the_only_approximation(
    make_checkpoint: MakeCheckpoint,
) -> None:
    pair = Pair(make_checkpoint(dtype="float64"), [("split", {"kv_heads": 4, "noise": 0.0})])
    base, expected = gradients(pair.base), gradients(pair.grown)
    found = pair.mapped(base)
    rest = {n: m for n, m in pair.sourced.items() if not any(word in n for word in KEY_VALUES)}
    assert worst(found, expected, rest) < 1e-12
    assert worst(found, expected, pair.sourced) > 0.1
    name = "model.layers.1.self_attn.k_proj.weight"
    copies = expected[name].view(2, 2, 8, 32).sum(1)
    assert torch.allclose(copies, base[name].view(2, 8, 32), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "steps",
    [
        [("split", {"g": 2})],
        [("hyperclone-noisy", {"hidden_size": 40, "ffn": 60, "heads": 8, "noise": 0.5})],
        [("split", {"kv_heads": 4})],
        [("lemon", {"hidden_size": 72, "noise": 0.3})],
    ],
    ids=lambda steps: "-".join(steps[0][1]),
)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_what_copies_add_up_to_is_exact_for_any_noise_and_shares(
    steps: Steps, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    pair = Pair(make_checkpoint(tied=tied, dtype="float64"), steps)
    base, expected = gradients(pair.base), gradients(pair.grown)
    generator = torch.Generator().manual_seed(5)
    ways = {n: torch.randn(g.shape, generator=generator).to(g) for n, g in base.items()}
    grown_ways = of_recipes(pair.plan, linear, ways)
    found = pair.mapped(base)
    for name, gradient_there in base.items():
        wanted = (gradient_there * ways[name]).sum()
        for grown in (expected[name], found[name]):
            error = (grown * grown_ways[name]).sum() - wanted
            assert abs(error) < 1e-11 * gradient_there.norm() * ways[name].norm(), name


def test_untied_tensors_share_the_gradient_of_the_tied_one(make_checkpoint: MakeCheckpoint) -> None:
    pair = Pair(make_checkpoint(tied=True, dtype="float64"), [("untie", {})])
    base, expected = gradients(pair.base), gradients(pair.grown)
    found = pair.mapped(base)
    embeddings, head = "model.embed_tokens.weight", "lm_head.weight"
    assert torch.equal(found[embeddings], found[head])
    assert torch.allclose(expected[embeddings] + expected[head], base[embeddings], atol=1e-14)
