"""Mixtures of experts that a dense model becomes: Mixtral, Qwen2-MoE, Qwen3-MoE and FlexOLMo.

Each is its dense relative with experts and a router in place of the MLP. A router gives a token's
`num_experts_per_tok` experts of highest score shares that sum to 1, in Mixtral always and in the
others where `norm_topk_prob` is true. A `*` in the name of a role stands for the number of an
expert. They grow in depth and in experts; widths grow before they become mixtures.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hfgrow.plan.families.llama import (
    ATTENTION_BIASES,
    ATTENTION_IN,
    ATTENTION_OUT,
    FFN,
    HEAD,
    HIDDEN,
    INNER,
    KEY,
    MLP_IN,
    MLP_OUT,
    NORMS,
    OUTER,
    POST_NORMS,
    QUERY,
    query_key_value_biases,
)
from hfgrow.plan.families.qwen import HEAD_NORMS
from hfgrow.plan.families.table import (
    AXIS_KEYS,
    Config,
    Family,
    Kind,
    Role,
    class_defaults,
    is_count,
    windowed,
)

# More experts than any model has; a bound on what a typing error can ask for.
MAX_EXPERTS = 4096
_EXPERTS = (("experts",),)
_EXPERT = (("expert_ffn",),)
_SHARED = (("shared_ffn",),)
# A score for each expert.
_ROUTER = Role("mlp.gate.weight", (_EXPERTS, HIDDEN))
_EXPERTS_OF_QWEN = (
    Role("mlp.experts.*.gate_proj.weight", (_EXPERT, HIDDEN)),
    Role("mlp.experts.*.up_proj.weight", (_EXPERT, HIDDEN)),
    Role("mlp.experts.*.down_proj.weight", (HIDDEN, _EXPERT), ends_branch=True),
)
_WIDTH = {
    axis: "it is a mixture of experts; grow the width of its dense base, and upcycle that"
    for axis in (*AXIS_KEYS, "qk_dim", "expert_ffn", "shared_ffn", "experts")
}


def expert_sizes(config: Config) -> dict[str, int]:
    """Return the sizes of what stands in place of the MLP."""
    return {
        "experts": int(config.get("num_local_experts") or config.get("num_experts") or 0),
        "expert_ffn": int(config.get("moe_intermediate_size") or config["intermediate_size"]),
        "shared_ffn": int(config.get("shared_expert_intermediate_size") or 0),
    }


def with_experts(config: Config, experts: int, top_k: int) -> dict[str, Any]:
    """Return the config of a mixture with other numbers of experts, all and a token's."""
    keys = [key for key in ("num_local_experts", "num_experts") if config.get(key) is not None]
    return {**config, **dict.fromkeys(keys, experts), "num_experts_per_tok": top_k}


def normalises_shares(config: Config) -> bool:
    """Say whether the shares of a token's experts are divided by their sum."""
    return config.get("model_type") == "mixtral" or bool(config.get("norm_topk_prob"))


def experts_objection(config: Config) -> str:
    """Say what of a mixture hfgrow does not read, or cannot be."""
    is_local = config.get("num_local_experts") is not None or (
        config.get("model_type") == "mixtral" and config.get("num_experts") is None
    )
    name = "num_local_experts" if is_local else "num_experts"
    num_experts, top_k = config.get(name), config.get("num_experts_per_tok")
    for key, value in ((name, num_experts), ("num_experts_per_tok", top_k)):
        if value is None:
            return f"{key} is missing"
        if not is_count(value):
            return f"{key} must be a positive integer"
    assert isinstance(num_experts, int)
    assert isinstance(top_k, int)
    if num_experts > MAX_EXPERTS:
        return f"{name} {num_experts} is more than the {MAX_EXPERTS} that hfgrow plans"
    if top_k > num_experts:
        return f"num_experts_per_tok {top_k} is more than {name} {num_experts}"
    for key in ("moe_intermediate_size", "shared_expert_intermediate_size"):
        if config.get(key) is not None and not is_count(config[key]):
            return f"{key} must be a positive integer"
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        return "only some layers have experts, by mlp_only_layers or decoder_sparse_step"
    return ""


def window_layer_types(config: Config) -> dict[str, list[Any]]:
    """Derive `layer_types` of Qwen2-MoE: every other layer below `max_window_layers` is sliding."""
    has_window, first_full = config.get("use_sliding_window"), config.get("max_window_layers", 28)
    return windowed(config, lambda i: has_window and i % 2 == 0 and i < first_full)


def _needing(*keys: str) -> Callable[[Config], str]:
    """Return the objection of a class whose defaults for some sizes are those of one model."""

    def objection(config: Config) -> str:
        absent = next((key for key in keys if config.get(key) is None), None)
        return f"{absent} is missing" if absent else experts_objection(config)

    return objection


MIXTRAL = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    class_defaults=class_defaults(vocab=32000, hidden=4096, ffn=14336, layers=32, heads=32),
    layer=(
        *NORMS,
        *ATTENTION_IN,
        *ATTENTION_OUT,
        Role("block_sparse_moe.gate.weight", (_EXPERTS, HIDDEN)),
        Role("block_sparse_moe.experts.*.w1.weight", (FFN, HIDDEN)),
        Role("block_sparse_moe.experts.*.w3.weight", (FFN, HIDDEN)),
        Role("block_sparse_moe.experts.*.w2.weight", (HIDDEN, FFN), ends_branch=True),
    ),
    outer=OUTER,
    head=HEAD,
    kv_heads_default=8,
    more_sizes=expert_sizes,
    refuses=experts_objection,
    fixed_axes=_WIDTH,
)

QWEN2_MOE = Family(
    model_type="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    class_defaults=class_defaults(vocab=151936, hidden=2048, ffn=5632, layers=24, heads=16),
    layer=(
        *NORMS,
        *ATTENTION_IN,
        *query_key_value_biases("qkv_bias"),
        *ATTENTION_OUT,
        _ROUTER,
        *_EXPERTS_OF_QWEN,
        Role("mlp.shared_expert.gate_proj.weight", (_SHARED, HIDDEN)),
        Role("mlp.shared_expert.up_proj.weight", (_SHARED, HIDDEN)),
        Role("mlp.shared_expert.down_proj.weight", (HIDDEN, _SHARED), ends_branch=True),
        Role("mlp.shared_expert_gate.weight", ((("one",),), HIDDEN)),
    ),
    outer=OUTER,
    head=HEAD,
    kv_heads_default=16,
    more_sizes=lambda config: {**expert_sizes(config), "one": 1},
    layer_counts=("num_hidden_layers", "max_window_layers"),
    on_by_default=("qkv_bias",),
    derived_lists=window_layer_types,
    refuses=_needing("moe_intermediate_size", "shared_expert_intermediate_size"),
    fixed_axes=_WIDTH,
)

QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    class_defaults=class_defaults(vocab=151936, hidden=2048, ffn=6144, layers=24, heads=32),
    layer=(
        *NORMS,
        *ATTENTION_IN,
        *HEAD_NORMS,
        *ATTENTION_BIASES,
        *ATTENTION_OUT,
        _ROUTER,
        *_EXPERTS_OF_QWEN,
    ),
    outer=OUTER,
    head=HEAD,
    kv_heads_default=4,
    more_sizes=expert_sizes,
    refuses=_needing("moe_intermediate_size"),
    fixed_axes=_WIDTH,
)

_MLP_ROLES = {role.tensor for role in (*MLP_IN, *MLP_OUT)}
FLEX_OLMO = Family(
    model_type="flex_olmo",
    architecture="FlexOlmoForCausalLM",
    class_defaults=class_defaults(vocab=100352, hidden=4096, ffn=11008, layers=32, heads=32),
    layer=(
        *(role for role in INNER if role.tensor not in _MLP_ROLES),
        Role("self_attn.q_norm.weight", (QUERY,), Kind.GAIN),
        Role("self_attn.k_norm.weight", (KEY,), Kind.GAIN),
        *POST_NORMS,
        _ROUTER,
        *(replace(role, ends_branch=False) for role in _EXPERTS_OF_QWEN),
    ),
    outer=OUTER,
    head=HEAD,
    more_sizes=expert_sizes,
    refuses=experts_objection,
    fixed_axes=_WIDTH,
)
