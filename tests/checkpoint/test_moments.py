"""Optimizer state of grown models: what each mode keeps, and what is refused."""

from typing import Any

import pytest
import torch

from hfgrow.checkpoint.compute.moments import Mode, grow_optimizer_state
from hfgrow.checkpoint.compute.state_dict import evaluated
from hfgrow.errors import ModelError, UsageError
from hfgrow.growth.memory import grow_state_dict, plan_state_dict
from hfgrow.plan.plan import TensorPlan
from hfgrow.plan.tensors import first_copies, gradient
from tests.checkpoints import MakeCheckpoint, load
from tests.gradients import FRACTION, Steps, Tensors, gradients, grown_model
from tests.growths import with_exact_norms


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


@pytest.mark.parametrize("mode", ["copy", "copy-v", "asym"])
def test_muon_and_adamw_grow_side_by_side(mode: Mode, model: Any) -> None:
    """Muon has the matrices of the layers, AdamW everything else."""
    state = adam_state(model)
    inside = {name for name in state if ".layers." in name and state[name]["exp_avg"].ndim == 2}
    mixed = state | {name: {"momentum_buffer": state[name]["exp_avg"]} for name in inside}
    plan = plan_state_dict(model, [("zero-depth", {"g": 2}), ("hyperclone", {"g": 2})])
    grown, as_adamw = (grow_optimizer_state(plan, one, mode) for one in (mixed, state))
    assert grown.keys() == plan.tensors.keys()
    for name, entry in grown.items():
        if ".layers." in name and plan.tensors[name].recipe.shape[1:]:
            assert torch.equal(entry["momentum_buffer"], as_adamw[name]["exp_avg"]), name
            assert entry.keys() == {"momentum_buffer"}
            assert mode != "copy-v" or not entry["momentum_buffer"].any()
        else:
            assert all(torch.equal(entry[key], as_adamw[name][key]) for key in as_adamw[name])


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
        ({key: {"square_avg": entry["exp_avg"]} for key, entry in state.items()}, "square_avg: it"),
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
