"""The tables of tensor roles, against the classes of transformers themselves.

The tables of tensor roles, against what the classes of transformers compute.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from hfgrow.plan.depth import grown_config
from hfgrow.plan.families import FAMILIES, NOT_GROWN
from hfgrow.plan.families.table import Family, Kind, layer_of, layer_prefix
from tests.checkpoints import SIZES, TRAITS, MakeCheckpoint, load, logits
from tests.families import DENSE, EVERY_FAMILY
from tests.sampling import sampled
from tests.skeletons import config_of, skeleton

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
# The classes for which an explicit null is no number of key-value heads.
NULL_IS_REFUSED = {
    "cwm",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "helium",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "vaultgemma",
}
POST_NORM = {"exaone4", "flex_olmo", "gemma2", "gemma3_text", "olmo2", "olmo3"}
# Those whose hidden size is that of all heads.
SQUARE = {"helium"}
# Those whose classes cannot even be made with some of the configs below.
PARTICULAR = {*SQUARE, "internlm3"}
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}


COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


def shapes_by_transformers(model: Any) -> dict[str, tuple[int, ...]]:
    tensors = model.state_dict()
    if FAMILIES[model.config.model_type].has_experts:
        tensors = revert_weight_conversion(model, tensors)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("model_type", "variant", "tied"), sampled(FAMILIES, VARIANTS, (False, True), one_in=4)
)
def test_names_and_shapes_are_those_of_transformers(
    model_type: str, variant: str, tied: bool
) -> None:
    if variant == "kv heads null" and model_type in NULL_IS_REFUSED:
        pytest.skip("transformers refuses such a config")
    config = config_of(model_type, **VARIANTS[variant], tie_word_embeddings=tied)
    if model_type in PARTICULAR and (objection := FAMILIES[model_type].objection(config)):
        pytest.skip(objection)
    expected = shapes_by_transformers(skeleton(model_type, config))
    if tied:
        del expected["lm_head.weight"]
    family = FAMILIES[model_type]
    assert family.shapes(config, tied=family.is_tied(config)) == expected


@pytest.mark.parametrize("model_type", FAMILIES)
def test_names_and_shapes_are_right_where_config_json_is_silent(model_type: str) -> None:
    silent = {"num_key_value_heads": ..., "num_attention_heads": 32, "hidden_size": 64}
    config = config_of(model_type, **silent)
    if model_type in PARTICULAR and (objection := FAMILIES[model_type].objection(config)):
        pytest.skip(objection)
    model = skeleton(model_type, config)
    family = FAMILIES[model_type]
    assert family.is_tied(config) == model.config.tie_word_embeddings
    expected = shapes_by_transformers(model)
    if model.config.tie_word_embeddings:
        del expected["lm_head.weight"]
    assert family.shapes(config, tied=family.is_tied(config)) == expected


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_architecture_is_the_class_that_transformers_loads(model_type: str) -> None:
    assert (
        type(skeleton(model_type, config_of(model_type))).__name__
        == FAMILIES[model_type].architecture
    )


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_sizes_that_a_config_may_leave_out_are_those_of_the_class(model_type: str) -> None:
    defaults = FAMILIES[model_type].class_defaults
    config = AutoConfig.for_model(model_type)
    assert defaults == {key: getattr(config, key) for key in COUNTS}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_lists_of_each_layer_are_those_that_transformers_derives(model_type: str) -> None:
    for layers, traits in ((1, True), (4, True), (7, True), (30, True), (30, False)):
        config = config_of(
            model_type, **(TRAITS[model_type] if traits else {}), num_hidden_layers=layers
        )
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
        config = config_of(model_type, **window)
        if FAMILIES[model_type].objection(config) or (
            model_type,
            config.get("sliding_window", 0),
        ) == (
            "cwm",
            None,
        ):
            continue
        derived: Any = AutoConfig.for_model(model_type, **config)
        found = FAMILIES[model_type].per_layer(config).get("layer_types")
        assert found == getattr(derived, "layer_types", None), window


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_a_branch_ends_in_its_projection_or_in_the_norm_behind_it(family: Family) -> None:
    ends = {
        role.tensor.removesuffix(".bias").removesuffix(".weight")
        for role in family.layer
        if role.ends_branch
    }
    if family.model_type == "glm4":
        assert ends == {"post_self_attn_layernorm", "post_mlp_layernorm"}
    elif family.model_type in POST_NORM:
        assert ends == {"post_attention_layernorm", "post_feedforward_layernorm"}
    elif family.model_type == "mixtral":
        assert ends == {"self_attn.o_proj", "block_sparse_moe.experts.*.w2"}
    elif family.has_experts:
        assert {"self_attn.o_proj", "mlp.experts.*.down_proj"} <= ends
    else:
        assert ends == {"self_attn.o_proj", "mlp.down_proj"}


@pytest.mark.parametrize("model_type", DENSE)
def test_gains_begin_at_0_exactly_where_they_are_stored_less_1(model_type: str) -> None:
    family = FAMILIES[model_type]
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_config(AutoConfig.for_model(model_type, **config_of(model_type)))
    roles = {role.tensor: role for role in (*family.layer, *family.outer, family.head)}
    gains = 0
    for name, tensor in model.named_parameters():
        found = layer_of(name)
        if roles[found[1] if found else name].kind is Kind.GAIN:
            assert torch.all(tensor == (0 if family.centred_gains else 1)), name
            gains += 1
    assert gains >= 9


@pytest.mark.parametrize(("model_type", "dtype"), sampled(EVERY_FAMILY, DTYPES))
def test_embeddings_are_scaled_as_the_loaded_class_scales_them(
    model_type: str, dtype: str, make_checkpoint: MakeCheckpoint
) -> None:
    folder = make_checkpoint(model_type, dtype=str(DTYPES[dtype]).removeprefix("torch."))
    embeddings = load(folder)[0].model.embed_tokens
    with torch.no_grad():
        embeddings.weight.fill_(1)
    scale = FAMILIES[model_type].embedding_scale
    expected = scale(SIZES["hidden_size"], dtype) if scale else {"minicpm3": 3}.get(model_type, 1)
    assert embeddings(torch.tensor([1])).unique().tolist() == [expected]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gemma3_text"])
def test_embedding_scales_are_rounded_as_torch_rounds_them(model_type: str, dtype: str) -> None:
    scaled = type(skeleton(model_type, config_of(model_type)).model.embed_tokens)
    scale = FAMILIES[model_type].embedding_scale
    assert scale is not None
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        # The last are squares of numbers halfway between two of bfloat16, and of float16.
        halfway = (257**2, 259**2, 2049**2, 2051**2)
        for hidden_size in (*range(1, 600, 7), *range(640, 16385, 128), *halfway):
            embeddings = scaled(2, 1, 0, embed_scale=hidden_size**0.5)
            torch.nn.init.ones_(embeddings.weight)
            assert embeddings(torch.tensor([1])).item() == scale(hidden_size, dtype), hidden_size
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_softmax_scale_follows_the_heads_unless_the_config_fixes_it(model_type: str) -> None:
    family = FAMILIES[model_type]
    for head_dim in (8, 24):
        config = config_of(model_type, **TRAITS[model_type]) | {"head_dim": head_dim}
        found = skeleton(model_type, config).model.layers[0].self_attn.scaling
        by_heads: float = family.sizes(config)["qk_dim"] ** -0.5
        fixed = {"": by_heads, "attention_multiplier": 0.25, "query_pre_attn_scalar": 20**-0.5}
        assert found == pytest.approx(fixed[family.softmax_scale_key], rel=1e-15)


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() - SQUARE))
def test_transformers_refuses_undivided_hidden_sizes_exactly_where_the_table_says(
    model_type: str,
) -> None:
    config = config_of(model_type, **TRAITS[model_type])
    config |= {"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 16}
    family = FAMILIES[model_type]
    assert bool(family.objection(config)) == family.heads_divide_hidden
    if family.heads_divide_hidden:
        with pytest.raises(Exception, match="multiple of the number of attention"):
            skeleton(model_type, config)
    else:
        skeleton(model_type, config)
    assert not family.objection(config_of(model_type, **TRAITS[model_type]))


@pytest.mark.parametrize("pairs", [1, 2, 3, 4])
@pytest.mark.parametrize("share", [None, 0.5, 1.0])
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_factors_of_longrope_are_refused_as_transformers_refuses_them(
    key: str, share: float | None, pairs: int
) -> None:
    rope: dict[str, Any] = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * pairs,
        "long_factor": [2.0] * pairs,
    }
    config = config_of(**{key: rope}, original_max_position_embeddings=64)
    if share is not None:
        config["partial_rotary_factor"] = share
    if FAMILIES["phi3"].objection(config):
        assert pairs != (2 if share == 0.5 else 4)
        with pytest.raises(Exception, match="must have length"):
            skeleton("phi3", copy.deepcopy(config))
    else:
        skeleton("phi3", copy.deepcopy(config))


def test_longrope_wants_heads_to_grow_with_the_hidden_size() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = config_of(rope_scaling=rope, head_dim=8)
    objection = FAMILIES["phi3"].objection
    assert not objection(config)
    assert objection(config | {"hidden_size": 64})
    assert not objection(config | {"hidden_size": 64, "num_attention_heads": 8})


def test_what_is_refused_is_spelled_as_transformers_spells_it_and_is_not_grown() -> None:
    assert not NOT_GROWN.keys() & FAMILIES.keys()
    assert NOT_GROWN.keys() - CONFIG_MAPPING.keys() <= {"kimi_k2"}


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


HIDDEN = (("hidden",),)


def silence(family: Family, layer: Any, kept: str = "") -> None:
    """Let the branches of a layer end in nothing; `kept` is left as it is."""
    tensors = dict(layer.named_parameters())
    with torch.no_grad():
        for role in family.layer:
            if role.ends_branch and role.tensor in tensors and role.tensor != kept:
                centred = role.kind is Kind.GAIN and family.centred_gains
                tensors[role.tensor].fill_(-1 if centred else 0)


@pytest.mark.parametrize("model_type", DENSE)
def test_a_layer_without_branch_ends_does_nothing_and_each_end_is_needed(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    family = FAMILIES[model_type]
    loaded = load(make_checkpoint(model_type))[0]
    ends = [role.tensor for role in family.layer if role.ends_branch]
    present = [name for name in ends if name in dict(loaded.model.layers[0].named_parameters())]
    assert len(present) in (2, 3, 4)
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


@pytest.mark.parametrize("model_type", DENSE)
def test_a_model_of_twice_the_depth_computes_the_same_if_every_other_layer_does_nothing(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    family = FAMILIES[model_type]
    base = load(make_checkpoint(model_type))[0]
    layer_map = [0, 0, 1, 1, 2, 2, 3, 3]
    config = config_of(model_type, **TRAITS[model_type], tie_word_embeddings=False)
    twin = twin_of(base, model_type, grown_config(config, family, layer_map))
    for i, source in enumerate(layer_map):
        twin.model.layers[i].load_state_dict(base.model.layers[source].state_dict())
        if i % 2:
            silence(family, twin.model.layers[i])
    for part in ("model.embed_tokens", "model.norm", "lm_head"):
        twin.get_submodule(part).load_state_dict(base.get_submodule(part).state_dict())
    assert torch.equal(logits(twin), logits(base))


@pytest.mark.parametrize("model_type", sorted({*DENSE} - SQUARE))
def test_a_model_of_twice_the_hidden_size_computes_the_same_if_all_is_there_twice(
    model_type: str, make_checkpoint: MakeCheckpoint
) -> None:
    """The table says which dimensions are the stream; what reads it takes half of each copy."""
    family = FAMILIES[model_type]
    base = load(make_checkpoint(model_type))[0]
    config = config_of(model_type, **TRAITS[model_type], tie_word_embeddings=False)
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
