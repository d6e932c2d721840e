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
from hfgrow.depth import apply_layer_map, grown_config
from hfgrow.families import FAMILIES
from tests.checkpoints import SIZES, TRAITS, MakeCheckpoint

LAYER_MAPS = st.lists(st.integers(0, 3), min_size=1, max_size=12)


def lists_by_transformers(model_type: str, config: dict[str, Any]) -> dict[str, list[Any]]:
    loaded: Any = AutoConfig.for_model(model_type, **config)
    keys = ("layer_types", "no_rope_layers")
    return {key: getattr(loaded, key) for key in keys if getattr(loaded, key, None) is not None}


@pytest.mark.parametrize("explicit", [False, True], ids=["derived", "explicit"])
@pytest.mark.parametrize("model_type", FAMILIES)
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
    follow = {"num_hidden_layers", "max_window_layers", "layer_types", "no_rope_layers"}
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
    grown = apply_layer_map(base, [3, 3], operator="test", arguments={})
    outside = [name for name in base.tensors if not name.startswith("model.layers.")]
    assert {name: grown.tensors[name] for name in outside} == {
        name: base.tensors[name] for name in outside
    }


@given(layer_map=LAYER_MAPS)
def test_each_tensor_comes_from_the_same_role_of_its_source_layer(
    layer_map: list[int], make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint()))
    grown = apply_layer_map(base, layer_map, operator="test", arguments={})
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
    one = apply_layer_map(base, first, operator="test", arguments={})
    two = apply_layer_map(one, second, operator="test", arguments={})
    direct = apply_layer_map(base, [first[i] for i in second], operator="test", arguments={})
    assert (two.tensors, two.layer_map) == (direct.tensors, direct.layer_map)
    family = FAMILIES["smollm3"]
    assert family.per_layer(two.config) == family.per_layer(direct.config)


def test_the_step_is_recorded(base: Path) -> None:
    plan = read(LocalFolder(base))
    grown = apply_layer_map(plan, [0, 1], operator="name", arguments={"g": 2})
    (step,) = grown.steps
    assert (step.operator, step.arguments) == ("name", {"g": 2})
    assert [source.layer for source in step.layer_map] == [0, 1]
    assert plan.steps == ()
