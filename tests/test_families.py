"""The tables of tensor roles, against the classes of transformers themselves."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hfgrow.families import FAMILIES
from hfgrow.families.table import Family, Stream, layer_prefix
from tests.checkpoints import SIZES, TRAITS

# The ways in which config.json may or may not name what the class would add by itself.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "only attention_bias": {"attention_bias": True, "mlp_bias": False},
    "only mlp_bias": {"mlp_bias": True},
    "head_dim": {"head_dim": 24},
    "one kv head": {"num_key_value_heads": 1},
    "kv heads null": {"num_key_value_heads": None},
    "kv heads left out": {"num_key_value_heads": ..., "num_attention_heads": 32},
}


def config_of(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (SIZES | changes).items() if value is not ...}


def skeleton(model_type: str, config: Mapping[str, Any]) -> Any:
    """The model class of transformers, without memory for its weights."""
    auto_model: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto_model.from_config(AutoConfig.for_model(model_type, **config))


def shapes_by_transformers(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_names_and_shapes_are_those_of_transformers(
    model_type: str, variant: str, tied: bool
) -> None:
    if (model_type, variant) == ("mistral", "kv heads null"):
        pytest.skip("transformers refuses such a config")
    config = config_of(**VARIANTS[variant], tie_word_embeddings=tied)
    expected = shapes_by_transformers(skeleton(model_type, config))
    if tied:
        del expected["lm_head.weight"]
    family = FAMILIES[model_type]
    assert family.shapes(config, tied=family.is_tied(config)) == expected


@pytest.mark.parametrize("model_type", FAMILIES)
def test_names_and_shapes_are_right_where_config_json_is_silent(model_type: str) -> None:
    silent = {"num_key_value_heads": ..., "num_attention_heads": 32, "hidden_size": 64}
    config = config_of(**silent)
    model = skeleton(model_type, config)
    family = FAMILIES[model_type]
    assert family.is_tied(config) == model.config.tie_word_embeddings
    expected = shapes_by_transformers(model)
    if model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    assert family.shapes(config, tied=family.is_tied(config)) == expected


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_architecture_is_the_class_that_transformers_loads(model_type: str) -> None:
    assert type(skeleton(model_type, config_of())).__name__ == FAMILIES[model_type].architecture


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_lists_of_each_layer_are_those_that_transformers_derives(model_type: str) -> None:
    for layers in (1, 4, 7, 30):
        config = config_of(**TRAITS[model_type], num_hidden_layers=layers)
        derived: Any = AutoConfig.for_model(model_type, **config)
        found = FAMILIES[model_type].per_layer(config)
        for key in ("layer_types", "no_rope_layers"):
            if getattr(derived, key, None) is not None:
                assert found[key] == getattr(derived, key), key
            else:
                assert key not in found


@pytest.mark.parametrize("model_type", FAMILIES)
def test_windows_are_off_where_transformers_turns_them_off(model_type: str) -> None:
    windows: tuple[dict[str, Any], ...] = (
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 2},
        {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 2},
        {"use_sliding_window": True, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    )
    for window in windows:
        config = config_of(**window)
        derived: Any = AutoConfig.for_model(model_type, **config)
        found = FAMILIES[model_type].per_layer(config).get("layer_types")
        assert found == getattr(derived, "layer_types", None), window


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_exactly_o_proj_and_down_proj_write_the_residual_stream(family: Family) -> None:
    writers = {
        name.removesuffix(".bias").removesuffix(".weight") for name in family.residual_writers
    }
    assert writers == {"self_attn.o_proj", "mlp.down_proj"}
    outer = {role.tensor for role in family.outer if role.stream is Stream.WRITES}
    assert outer == {"model.embed_tokens.weight"}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_the_layers_of_a_family_have_the_same_shapes(family: Family) -> None:
    shapes = family.shapes(config_of(), tied=True)
    layers = [
        {
            name.removeprefix(layer_prefix(i)): shape
            for name, shape in shapes.items()
            if name.startswith(layer_prefix(i))
        }
        for i in range(4)
    ]
    assert layers[0]
    assert all(layer == layers[0] for layer in layers)
