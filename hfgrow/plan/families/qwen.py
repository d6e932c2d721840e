"""Qwen2 and Qwen2.5: biases on q, k and v, and a list of layer types.

Qwen3: norms on every query and key head, a head_dim of its own, and a list of layer types.
"""

from typing import Any

from hfgrow.plan.families.llama import (
    ATTENTION_BIASES,
    HEAD,
    MATRICES,
    OUTER,
    query_key_value_biases,
)
from hfgrow.plan.families.table import Config, Family, Kind, Role, class_defaults


def window_layer_types(config: Config) -> dict[str, list[Any]]:
    """Derive `layer_types` as transformers does: sliding from `max_window_layers` upwards."""
    windowed = config.get("use_sliding_window") and config.get("sliding_window", 4096) is not None
    first = config.get("max_window_layers", 28)
    return {
        "layer_types": [
            "sliding_attention" if windowed and i >= first else "full_attention"
            for i in range(config["num_hidden_layers"])
        ]
    }


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
