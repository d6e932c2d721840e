"""Qwen2 and Qwen2.5: biases on q, k and v, and a list of layer types.

Qwen3: norms on every query and key head, a head_dim of its own, and a list of layer types.

Seed-OSS: Qwen2 without that list, its biases optional. Hunyuan: Qwen3 without it, and norms of
heads behind the rotation, under other names.
"""

from dataclasses import replace
from typing import Any

from hfgrow.plan.families.llama import (
    ATTENTION_BIASES,
    HEAD,
    MATRICES,
    MLP_BIASES,
    OUT_BIAS,
    OUTER,
    head_dim_objection,
    query_key_value_biases,
)
from hfgrow.plan.families.table import Config, Family, Kind, Role, class_defaults, windowed


def window_layer_types(config: Config) -> dict[str, list[Any]]:
    """Derive `layer_types` as transformers does: sliding from `max_window_layers` upwards."""
    has_window = config.get("use_sliding_window") and config.get("sliding_window", 4096) is not None
    first = config.get("max_window_layers", 28)
    return windowed(config, lambda i: has_window and i >= first)


QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    layer=(*MATRICES, *query_key_value_biases()),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=151936, hidden=4096, ffn=22016, layers=32, heads=32),
    kv_heads_default=32,
    derived_lists=window_layer_types,
    layer_counts=("num_hidden_layers", "max_window_layers"),
)

HEAD_NORMS = (
    Role("self_attn.q_norm.weight", ((("qk_dim",),),), Kind.GAIN),
    Role("self_attn.k_norm.weight", ((("qk_dim",),),), Kind.GAIN),
)

QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    layer=(
        *MATRICES,
        *HEAD_NORMS,
        *ATTENTION_BIASES,
    ),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=151936, hidden=4096, ffn=22016, layers=32, heads=32),
    kv_heads_default=32,
    head_dim_default=128,
    derived_lists=window_layer_types,
    layer_counts=("num_hidden_layers", "max_window_layers"),
)

SEED_OSS = Family(
    model_type="seed_oss",
    architecture="SeedOssForCausalLM",
    class_defaults=class_defaults(vocab=155136, hidden=4096, ffn=27648, layers=64, heads=80),
    layer=(
        *MATRICES,
        *query_key_value_biases("attention_bias"),
        replace(OUT_BIAS, when="attention_out_bias"),
        *MLP_BIASES,
    ),
    outer=OUTER,
    head=HEAD,
    kv_heads_default=8,
    head_dim_default=128,
    on_by_default=("attention_bias",),
)


HUNYUAN_V1_DENSE = Family(
    model_type="hunyuan_v1_dense",
    architecture="HunYuanDenseV1ForCausalLM",
    class_defaults=class_defaults(vocab=290943, hidden=4096, ffn=11008, layers=32, heads=32),
    layer=(
        *MATRICES,
        Role("self_attn.query_layernorm.weight", ((("qk_dim",),),), Kind.GAIN),
        Role("self_attn.key_layernorm.weight", ((("qk_dim",),),), Kind.GAIN),
        *ATTENTION_BIASES,
    ),
    outer=OUTER,
    head=HEAD,
    refuses=head_dim_objection,
)
