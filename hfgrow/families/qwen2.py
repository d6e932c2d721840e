"""Qwen2 and Qwen2.5: biases on q, k and v, and a list of layer types."""

from typing import Any

from hfgrow.families.llama import HEAD, MATRICES, OUTER, query_key_value_biases
from hfgrow.families.table import Config, Family


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
    kv_heads_default=32,
    derived_lists=window_layer_types,
    layer_counts=("num_hidden_layers", "max_window_layers"),
)
