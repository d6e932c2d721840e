"""The depth engine: a layer map applied to tensors and to the config's lists."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.plan.depth import apply_layer_map, grown_config, scale_branches
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Kind, Role, layer_of
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource
from hfgrow.plan.tensors import Blend, Fill, Normal, Recipe
from tests.checkpoints import SIZES, TRAITS, MakeCheckpoint
from tests.growths import NEAR

NORM, OUT = "input_layernorm.weight", "self_attn.o_proj.weight"
LAYER_MAPS = st.lists(st.integers(0, 3), min_size=1, max_size=12)


def lists_by_transformers(model_type: str, config: dict[str, Any]) -> dict[str, list[Any]]:
    loaded: Any = AutoConfig.for_model(model_type, **config)
    keys = ("layer_types", "no_rope_layers")
    return {key: getattr(loaded, key) for key in keys if getattr(loaded, key, None) is not None}


@pytest.mark.parametrize("explicit", [False, True], ids=["derived", "explicit"])
@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=pytest.mark.slow if name in NEAR else ()) for name in FAMILIES],
)
@given(layer_map=LAYER_MAPS)
def test_a_layer_keeps_its_kind_wherever_it_goes(
    model_type: str, explicit: bool, layer_map: list[int]
) -> None:
    config = SIZES | TRAITS[model_type]
    before = lists_by_transformers(model_type, config)
    if explicit:
        config = config | before
    grown = grown_config(config, FAMILIES[model_type], layer_map)
    after = lists_by_transformers(model_type, grown)
    assert after == {key: [old[i] for i in layer_map] for key, old in before.items()}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_grown_config_says_its_depth_and_keeps_the_rest(model_type: str) -> None:
    config = SIZES | TRAITS[model_type] | {"rope_theta": 5e5, "unknown_key": {"kept": [1, 2]}}
    grown = grown_config(config, FAMILIES[model_type], [0, 1, 2, 3] * 2)
    follow = {"num_hidden_layers", "max_window_layers", *FAMILIES[model_type].per_layer_lists}
    if model_type == "minicpm3":
        follow.add("scale_depth")
    assert grown["num_hidden_layers"] == 8
    assert {k: v for k, v in grown.items() if k not in follow} == {
        k: v for k, v in config.items() if k not in follow
    }


def test_the_base_config_stays_as_it_is() -> None:
    config = SIZES | TRAITS["smollm3"] | {"no_rope_layers": [1, 0, 1, 1]}
    before = json.dumps(config)
    grown_config(config, FAMILIES["smollm3"], [0, 0, 1, 1])
    assert json.dumps(config) == before


def test_no_list_is_written_where_the_rule_still_holds() -> None:
    assert "layer_types" not in grown_config(SIZES, FAMILIES["qwen2"], [0, 1, 2, 3, 0, 1, 2, 3])


def test_what_lies_outside_the_layers_stays(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    grown = apply_layer_map(base, [3, 3], GrowthStep("test", {}, (), False))
    outside = [name for name in base.tensors if not name.startswith("model.layers.")]
    assert {name: grown.tensors[name] for name in outside} == {
        name: base.tensors[name] for name in outside
    }


@given(layer_map=LAYER_MAPS)
def test_each_tensor_comes_from_the_same_role_of_its_source_layer(
    layer_map: list[int], make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint()))
    grown = apply_layer_map(base, layer_map, GrowthStep("test", {}, (), False))
    for i, source in enumerate(layer_map):
        for role in FAMILIES["llama"].layer:
            ours = grown.tensors[f"model.layers.{i}.{role.tensor}"]
            assert ours == base.tensors[f"model.layers.{source}.{role.tensor}"]
    assert grown.tensors.keys() == FAMILIES["llama"].shapes(grown.config, tied=False).keys()


@given(first=LAYER_MAPS, second=st.lists(st.integers(0, 99), min_size=1, max_size=12))
def test_two_maps_compose(
    first: list[int], second: list[int], make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint("smollm3")))
    second = [i % len(first) for i in second]
    one = apply_layer_map(base, first, GrowthStep("test", {}, (), False))
    two = apply_layer_map(one, second, GrowthStep("test", {}, (), False))
    direct = apply_layer_map(base, [first[i] for i in second], GrowthStep("test", {}, (), False))
    assert (two.tensors, two.layer_map) == (direct.tensors, direct.layer_map)
    family = FAMILIES["smollm3"]
    assert family.per_layer(two.config) == family.per_layer(direct.config)


def in_modes(base: GrowthPlan, *layers: int | tuple[int, str], **how: Any) -> GrowthPlan:
    layer_map = [LayerSource(*item) if isinstance(item, tuple) else item for item in layers]
    return apply_layer_map(base, layer_map, GrowthStep("test", {}, (), False), **how)


def recipe(plan: GrowthPlan, layer: int, tensor: str) -> Recipe:
    return plan.tensors[f"model.layers.{layer}.{tensor}"].recipe


def role_of(plan: GrowthPlan, name: str) -> Role | None:
    found = layer_of(name)
    return FAMILIES[plan.family].roles(plan.config)[found[1]] if found else None


def ends_branch(plan: GrowthPlan, name: str) -> bool:
    role = role_of(plan, name)
    return role is not None and role.ends_branch


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_zero_layer_differs_from_a_copy_in_its_branch_ends_only(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint(model_type)))
    zero = in_modes(base, 0, (1, "zero"))
    copy = in_modes(base, 0, 1)
    changed = {name for name in copy.tensors if copy.tensors[name] != zero.tensors[name]}
    ends = {name for name in copy.tensors if "layers.1." in name and ends_branch(copy, name)}
    assert changed == ends
    assert len(ends) >= 2
    for name in ends:
        role = role_of(copy, name)
        centred = FAMILIES[model_type].centred_gains and role and role.kind is Kind.GAIN
        expected = Fill(copy.tensors[name].shape, -1.0 if centred else 0.0)
        assert zero.tensors[name].recipe == expected


@pytest.mark.parametrize("model_type", FAMILIES)
def test_scaled_branches_are_scaled_at_their_ends_only(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint(model_type)))
    scaled = scale_branches(base, [0.5] * base.num_hidden_layers)
    assert scaled.keys() == base.tensors.keys()
    for name, tensor in base.tensors.items():
        terms = ((0.5, tensor.recipe),)
        if not ends_branch(base, name):
            assert scaled[name] == tensor
        elif FAMILIES[model_type].centred_gains and "norm" in name:
            shift = (1.0, Fill(tensor.shape, -0.5))
            assert scaled[name].recipe == Blend((*terms, shift))
        else:
            assert scaled[name].recipe == Blend(terms)


@pytest.mark.parametrize("mask", [0.0, 0.5])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_fresh_layer_reads_nothing_of_the_base(
    model_type: str, mask: float, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint(model_type)))
    grown = in_modes(base, 0, 1, 2, 3, (3, "random"), mask=mask)
    fresh = {name: t for name, t in grown.tensors.items() if name.startswith("model.layers.4.")}
    assert len(fresh) == len(FAMILIES[model_type].roles(base.config))
    for name, tensor in fresh.items():
        assert isinstance(tensor.recipe, (Fill, Normal))
        assert tensor.shape == base.tensors[name.replace(".4.", ".3.", 1)].shape
    per_layer = FAMILIES[model_type].per_layer(grown.config)
    assert all(kinds[4] == kinds[3] for kinds in per_layer.values())


def test_a_copy_of_a_zero_layer_is_a_zero_layer(make_checkpoint: MakeCheckpoint) -> None:
    once = in_modes(read(LocalFolder(make_checkpoint())), 0, (0, "zero"), 1)
    twice = in_modes(once, 0, 1, 1, 2)
    modes = [(source.layer, source.mode) for source in twice.layer_map]
    assert modes == [(0, "copy"), (0, "zero"), (0, "zero"), (1, "copy")]
    assert recipe(twice, 2, OUT) == recipe(once, 1, OUT) == Fill((32, 32), 0.0)
    assert twice.steps[1].layer_map[2] == LayerSource(1, "copy")


def test_an_average_of_averages_weighs_three_layers(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    once = in_modes(base, (0, "average"), (1, "average"))
    twice = in_modes(once, (0, "average"))
    a, b, c = (recipe(base, i, NORM) for i in range(3))
    below, above = Blend(((0.5, a), (0.5, b))), Blend(((0.5, b), (0.5, c)))
    assert recipe(twice, 0, NORM) == Blend(((0.5, below), (0.5, above)))
    assert twice.layer_map == (LayerSource(0, "average"),)


def test_an_average_with_a_zero_layer_is_half_of_the_other(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    grown = in_modes(in_modes(base, 0, (0, "zero")), 0, (0, "average"), 1)
    assert recipe(grown, 1, OUT) == Blend(((0.5, recipe(base, 0, OUT)), (0.5, Fill((32, 32), 0.0))))


def test_a_zeroed_fresh_layer_keeps_what_is_fresh_in_it(make_checkpoint: MakeCheckpoint) -> None:
    once = in_modes(read(LocalFolder(make_checkpoint())), 0, (0, "random"), mask=1.0)
    twice = in_modes(once, 0, 1, (1, "zero"))
    assert recipe(twice, 2, "self_attn.q_proj.weight") == recipe(once, 1, "self_attn.q_proj.weight")
    assert isinstance(recipe(once, 1, OUT), Normal)
    assert recipe(twice, 2, OUT) == Fill((32, 32), 0.0)


def test_fresh_tensors_are_seeded_by_seed_and_name(make_checkpoint: MakeCheckpoint) -> None:
    base = read(LocalFolder(make_checkpoint()))
    one, same, other = (
        in_modes(base, 0, (0, "random"), (0, "random"), seed=seed, mask=1.0) for seed in (1, 1, 2)
    )
    assert one.tensors == same.tensors
    keys = [
        tensor.recipe.key
        for plan in (one, other)
        for tensor in plan.tensors.values()
        if isinstance(tensor.recipe, Normal)
    ]
    assert len(set(keys)) == len(keys) == 2 * 2 * 7
    assert "1/model.layers.2.self_attn.o_proj.weight" in keys


def test_the_step_is_recorded(base: Path) -> None:
    plan = read(LocalFolder(base))
    grown = apply_layer_map(plan, [0, 1], GrowthStep("name", {"g": 2}, (), False))
    (step,) = grown.steps
    assert (step.operator, step.arguments) == ("name", {"g": 2})
    assert [source.layer for source in step.layer_map] == [0, 1]
    assert plan.steps == ()
