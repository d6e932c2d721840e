"""Optimizer state of grown models: gradient maps against backward passes, modes, refusals."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hfgrow.checkpoint.moments import Mode, grow_optimizer_state
from hfgrow.checkpoint.tensors import evaluated
from hfgrow.errors import ModelError, UsageError
from hfgrow.gradient import first_copies, gradient, linear, squared
from hfgrow.memory import grow_state_dict, plan_state_dict
from hfgrow.plan import GrowthPlan, TensorPlan
from hfgrow.tensor_recipes import Recipe
from tests.checkpoints import MakeCheckpoint, load, probe
from tests.growths import with_exact_norms

Steps = list[tuple[str, dict[str, object]]]
Tensors = dict[str, Any]

EVEN: dict[str, object] = {"even": True, "noise": 0.0}
FRACTION: dict[str, object] = {"hidden_size": 40, "ffn": 52, "heads": 8, "kv_heads": 4}
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
BASES = [("llama", False), ("llama", True), ("qwen3", False), ("qwen3", True), ("gemma2", True)]
WRITERS = ("embed_tokens", "o_proj", "down_proj")
KEY_VALUES = ("k_proj", "v_proj")


def gradients(model: Any, rows: slice = slice(None)) -> Tensors:
    tokens = probe()[rows]
    model.zero_grad(set_to_none=True)
    predicted = model(tokens).logits[:, :-1].flatten(0, 1)
    loss: Any = torch.nn.functional.cross_entropy(predicted, tokens[:, 1:].flatten())
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def grown_model(model: Any, steps: Steps) -> Any:
    state, config = grow_state_dict(model, steps)
    auto: Any = AutoModelForCausalLM
    grown = auto.from_config(type(model.config)(**config)).double()
    assert not grown.load_state_dict(state, strict=False).unexpected_keys
    grown.tie_weights()
    return with_exact_norms(grown.eval())


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


@pytest.mark.parametrize("growth", EXACT)
@pytest.mark.parametrize(("model_type", "tied"), BASES)
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


def adam_state(model: Any, dtype: Any = torch.float32) -> dict[str, dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: {
            "step": torch.tensor(7.0),
            "exp_avg": torch.randn(p.shape, generator=generator).to(dtype),
            "exp_avg_sq": torch.rand(p.shape, generator=generator).to(dtype),
        }
        for name, p in model.named_parameters()
    }


@pytest.fixture
def model(make_checkpoint: MakeCheckpoint) -> Any:
    return load(make_checkpoint())[0]


LAYER = "model.layers.{}.mlp.down_proj.weight"


@pytest.mark.parametrize("mode", ["copy", "copy-v", "asym"])
def test_layers_take_the_state_of_their_sources(mode: Mode, model: Any) -> None:
    state = adam_state(model, torch.bfloat16)
    plan = plan_state_dict(model, [("stack", {"layers": 6})])
    grown = grow_optimizer_state(plan, state, mode)
    assert grown.keys() == plan.tensors.keys()
    for layer, source in ((1, 1), (5, 3)):
        found, own = grown[LAYER.format(layer)], state[LAYER.format(source)]
        assert found["step"] == 7
        assert torch.equal(found["exp_avg_sq"], own["exp_avg_sq"])
        kept = mode == "copy" or (mode == "asym" and layer < 4)
        assert found["exp_avg"].dtype == torch.bfloat16
        assert torch.equal(found["exp_avg"], own["exp_avg"] * kept)


def test_asym_keeps_the_first_copies_of_rows_and_columns(model: Any) -> None:
    state = adam_state(model)
    plan = plan_state_dict(model, [("hyperclone", {"g": 2})])
    grown = grow_optimizer_state(plan, state, "asym")
    copied = grow_optimizer_state(plan, state, "copy")
    name = LAYER.format(2)
    found = grown[name]["exp_avg"]
    assert torch.equal(found[:32, :48], state[name]["exp_avg"] / 2)
    assert not found[32:].any()
    assert not found[:, 48:].any()
    assert torch.equal(copied[name]["exp_avg"], (state[name]["exp_avg"] / 2).tile(2, 2))
    for entry in (grown, copied):
        assert torch.equal(entry[name]["exp_avg_sq"], (state[name]["exp_avg_sq"] / 4).tile(2, 2))


@pytest.mark.parametrize("growth", ["staged", "bert2bert-aki"])
def test_asym_keeps_one_term_of_a_sum(growth: str, model: Any) -> None:
    plan = plan_state_dict(model, [(growth, {"g": 2})])
    name = LAYER.format(1)
    ones = {key: torch.ones(p.shape) for key, p in model.named_parameters()}
    kept = first_copies(gradient(plan.tensors[name].recipe), name)
    found = evaluated({name: TensorPlan("F32", kept)}, ones)[name]
    assert torch.equal(found != 0, torch.arange(64)[:, None].lt(32) & torch.arange(96).lt(48))


def test_what_is_new_begins_at_step_zero(model: Any) -> None:
    plan = plan_state_dict(model, [("zero-depth", {"g": 2})])
    grown = grow_optimizer_state(plan, adam_state(model), "copy")
    new = grown[LAYER.format(1)]
    assert new["step"] == 0
    assert not new["exp_avg"].any()
    assert not new["exp_avg_sq"].any()
    assert grown[LAYER.format(0)]["step"] == 7


def test_new_entries_have_no_history(model: Any) -> None:
    plan = plan_state_dict(model, [("zero-width", {"hidden_size": 40})])
    state = adam_state(model)
    found = grow_optimizer_state(plan, state, "copy")["model.layers.0.mlp.up_proj.weight"]
    for key in ("exp_avg", "exp_avg_sq"):
        assert found[key][:, :32].any()
        assert not found[key][:, 32:].any()


def test_z_stays_on_the_line_of_the_weights(model: Any) -> None:
    steps: Steps = [("hyperclone-noisy", {"hidden_size": 40, "heads": 8, "noise": 0.5})]
    plan, x = plan_state_dict(model, steps), model.state_dict()
    z = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in x.items()}
    state = {name: {"z": z[name], "exp_avg_sq": z[name].square()} for name in z}
    grown_x = grow_state_dict(model, steps)[0]

    def grown_z(mode: Mode, weights: Tensors, grown_weights: Tensors) -> Tensors:
        found = grow_optimizer_state(
            plan, state, mode, base_weights=weights, grown_weights=grown_weights
        )
        return {name: entry["z"] for name, entry in found.items()}

    found = grown_z("copy", x, grown_x)
    y = {name: 0.1 * z[name] + 0.9 * x[name] for name in x}
    grown_y = {name: 0.1 * found[name] + 0.9 * grown_x[name] for name in found}
    again, begun = grown_z("copy", y, grown_y), grown_z("copy-v", x, grown_x)
    for name, tensor in found.items():
        assert torch.allclose(again[name], tensor, atol=1e-6), name
        assert not torch.equal(begun[name], tensor)
        assert torch.equal(begun[name], grown_x[name])


def test_adamw_goes_on_where_the_base_would(make_checkpoint: MakeCheckpoint) -> None:
    base = with_exact_norms(load(make_checkpoint(tied=True, dtype="float64"))[0])
    steps: Steps = [("net2net", {**FRACTION, "noise": 0.0})]
    plan = plan_state_dict(base, steps)
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-2)
    for _ in range(3):
        gradients(base)
        optimizer.step()
    grown = grown_model(base, steps)
    going_on = torch.optim.AdamW(grown.parameters(), lr=1e-2)
    state = grow_optimizer_state(plan, state_of(base, optimizer), "copy")
    for name, parameter in grown.named_parameters():
        going_on.state[parameter] = state[name]
    for model, its in ((base, optimizer), (grown, going_on)):
        gradients(model)
        its.step()
    expected = grow_optimizer_state(plan, state_of(base, optimizer), "copy")
    for name, entry in state_of(grown, going_on).items():
        assert entry["step"] == 4
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(entry[key], expected[name][key], rtol=1e-9, atol=1e-18)


def state_of(model: Any, optimizer: Any) -> dict[str, Any]:
    return {name: optimizer.state[p] for name, p in model.named_parameters()}


def test_reset_keeps_nothing_and_frozen_tensors_have_no_state(model: Any) -> None:
    plan = plan_state_dict(model, [("stack", {"g": 2})])
    state = adam_state(model)
    assert grow_optimizer_state(plan, state, "reset") == {}
    del state["model.embed_tokens.weight"]
    grown = grow_optimizer_state(plan, state, "copy")
    assert plan.tensors.keys() - grown.keys() == {"model.embed_tokens.weight"}


def test_state_that_does_not_belong_is_refused(model: Any) -> None:
    plan = plan_state_dict(model, [("stack", {"g": 2})])
    state = adam_state(model)
    name = "model.norm.weight"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({f"module.{key}": entry for key, entry in state.items()}, "none of which"),
        ({key: {"momentum_buffer": entry["exp_avg"]} for key, entry in state.items()}, "AdamW"),
        (state | {name: {"step": 1, "exp_avg": torch.ones(32)}}, "has no exp_avg_sq"),
        (state | {name: state[name] | {"exp_avg": torch.ones(3)}}, "has shape"),
        (state | {name: state[name] | {"max_exp_avg_sq": torch.ones(32)}}, "max_exp_avg_sq"),
        (state | {name: state[name] | {"exp_avg": torch.ones(32).char()}}, "int8"),
    ]
    for given, reason in wrong:
        with pytest.raises(ModelError, match=reason):
            grow_optimizer_state(plan, given, "copy")
    with pytest.raises(UsageError, match="mode"):
        grow_optimizer_state(plan, state, "all")  # type: ignore[arg-type]
    averaged = {key: {"z": e["exp_avg"], "exp_avg_sq": e["exp_avg_sq"]} for key, e in state.items()}
    with pytest.raises(UsageError, match="base_weights"):
        grow_optimizer_state(plan, averaged, "copy")
