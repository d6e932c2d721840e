"""The tables of tensor roles, against what the classes of transformers compute."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hfgrow.plan.depth import grown_config
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import Family, Kind, layer_of
from tests.checkpoints import TRAITS, MakeCheckpoint, load, logits
from tests.skeletons import config_of, skeleton

HIDDEN = (("hidden",),)


def silence(family: Family, layer: Any, kept: str = "") -> None:
    """Let the branches of a layer end in nothing; `kept` is left as it is."""
    tensors = dict(layer.named_parameters())
    with torch.no_grad():
        for role in family.branch_ends:
            if role.tensor in tensors and role.tensor != kept:
                centred = role.kind is Kind.GAIN and family.centred_gains
                tensors[role.tensor].fill_(-1 if centred else 0)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_layer_without_branch_ends_does_nothing_and_each_end_is_needed(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    family = FAMILIES[model_type]
    loaded = load(make_checkpoint(model_type))[0]
    ends = [role.tensor for role in family.branch_ends]
    present = [name for name in ends if name in dict(loaded.model.layers[0].named_parameters())]
    assert len(present) in (2, 4) or model_type in {"gemma", "qwen3"}
    for kept in ("", *present):
        model = copy.deepcopy(loaded)
        streams: list[Any] = []
        for layer in model.model.layers:
            silence(family, layer, kept)
            layer.register_forward_hook(
                lambda module, inputs, output, into=streams: into.append((inputs[0], output))
            )
        logits(model)
        assert len(streams) == 4
        same = [torch.equal(before, after) for before, after in streams]
        assert all(same) if not kept else not any(same), kept


@pytest.mark.parametrize("part", range(3))
def test_the_fused_rows_of_phi3_are_queries_then_keys_then_values(
    part: int, make_checkpoint: MakeCheckpoint
) -> None:
    family = FAMILIES["phi3"]
    folder = make_checkpoint("phi3")
    model = load(folder)[0]
    attention = model.model.layers[0].self_attn
    seen: list[Any] = []
    attention.o_proj.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    fused = next(r for r in family.layer if r.tensor == "self_attn.qkv_proj.weight").dimensions[0]
    sizes = family.sizes(config_of(**TRAITS["phi3"]))
    lengths = [math.prod(sizes[axis] for axis in axes) for axes in fused]
    with torch.no_grad():
        attention.qkv_proj.weight.split(lengths)[part].zero_()
    logits(model)
    values = fused[part] == ("kv_heads", "head_dim")
    assert bool(torch.all(seen[0] == 0)) == values
    assert [axes[0] for axes in fused] == ["heads", "kv_heads", "kv_heads"]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_model_of_twice_the_depth_computes_the_same_if_every_other_layer_does_nothing(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    family = FAMILIES[model_type]
    base = load(make_checkpoint(model_type))[0]
    layer_map = [0, 0, 1, 1, 2, 2, 3, 3]
    config = config_of(**TRAITS[model_type], tie_word_embeddings=False)
    twin = twin_of(base, model_type, grown_config(config, family, layer_map))
    for i, source in enumerate(layer_map):
        twin.model.layers[i].load_state_dict(base.model.layers[source].state_dict())
        if i % 2:
            silence(family, twin.model.layers[i])
    for part in ("model.embed_tokens", "model.norm", "lm_head"):
        twin.get_submodule(part).load_state_dict(base.get_submodule(part).state_dict())
    assert torch.equal(logits(twin), logits(base))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_model_of_twice_the_hidden_size_computes_the_same_if_all_is_there_twice(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    """The table says which dimensions are the stream; what reads it takes half of each copy."""
    family = FAMILIES[model_type]
    base = load(make_checkpoint(model_type))[0]
    config = config_of(**TRAITS[model_type], tie_word_embeddings=False)
    hidden = config["hidden_size"]
    wider = config | {"hidden_size": 2 * hidden, "head_dim": family.sizes(config)["head_dim"]}
    wider |= family.compensated(config, wider) if family.compensated else {}
    roles = {role.tensor: role for role in (*family.layer, *family.outer, family.head)}
    tensors = {}
    for name, tensor in base.state_dict().items():
        found = layer_of(name)
        role = roles[found[1] if found else name]
        copies = [2 if dimension == HIDDEN else 1 for dimension in role.dimensions]
        reads = role.kind is Kind.LINEAR and copies[1] == 2
        tensors[name] = tensor.repeat(copies) * (0.5 if reads else 1)
    if scale := family.embedding_scale:
        tensors[family.embeddings.tensor] *= scale(hidden, "F32") / scale(2 * hidden, "F32")
    twin = twin_of(base, model_type, wider)
    twin.load_state_dict(tensors)
    assert torch.allclose(logits(twin), logits(base), atol=1e-4)


def twin_of(base: Any, model_type: str, config: Mapping[str, Any]) -> Any:
    """A model of another size that nothing was copied to."""
    auto_model: Any = AutoModelForCausalLM
    return auto_model.from_config(
        AutoConfig.for_model(model_type, **copy.deepcopy(dict(config))), dtype=base.dtype
    ).eval()


@pytest.mark.parametrize("layers", [1, 5, 7, 8, 62, 124])
@pytest.mark.parametrize("scale", [{}, {"scale_depth": 1.4}, {"scale_depth": 2}])
def test_minicpm3_keeps_the_scale_of_its_branches_to_the_last_bit_but_one(
    scale: dict[str, Any], layers: int
) -> None:
    traits = {key: value for key, value in TRAITS["minicpm3"].items() if key != "scale_depth"}
    config = config_of(**traits, **scale)
    grown = grown_config(config, FAMILIES["minicpm3"], [0] * layers)
    before, after = (
        skeleton("minicpm3", c).model.layers[0].residual_scale for c in (config, grown)
    )
    assert abs(after - before) <= 2.0**-52 * before


@pytest.mark.parametrize("layers", [70, 72, 93, 124])
def test_minicpm3_of_the_published_depth_keeps_the_scale_exactly(layers: int) -> None:
    config = config_of(**TRAITS["minicpm3"]) | {"num_hidden_layers": 62}
    grown = grown_config(config, FAMILIES["minicpm3"], [0] * layers)
    assert grown["scale_depth"] / math.sqrt(layers) == 1.4 / math.sqrt(62)


def test_minicpm3_leaves_what_does_not_follow_its_size() -> None:
    family = FAMILIES["minicpm3"]
    assert family.compensated is not None
    config = config_of(**TRAITS["minicpm3"], v_head_dim=8)
    config |= {"scale_depth": None, "dim_model_base": None}
    deeper = config | {"num_hidden_layers": 8}
    assert family.compensated(config, config) == {}
    assert family.compensated(config, deeper) == {}
    assert family.compensated(config, config | {"hidden_size": 64}) == {}


def test_minicpm3_refuses_a_hidden_size_whose_logits_need_a_broken_dim_model_base() -> None:
    family = FAMILIES["minicpm3"]
    assert family.compensated is not None
    config = config_of(**TRAITS["minicpm3"]) | {"dim_model_base": 20}
    for hidden_size, sound in ((48, True), (64, True), (36, False)):
        grown = config | {"hidden_size": hidden_size}
        grown |= family.compensated(config, grown)
        assert family.objection(grown) == (
            "" if sound else "dim_model_base must be a positive integer"
        )
