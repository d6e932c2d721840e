"""Gemma 3 without its vision tower: Gemma 2, norms on query and key heads, and a longer pattern."""

from typing import Any

from hfgrow.families.gemma import embedding_scale
from hfgrow.families.gemma2 import LAYER
from hfgrow.families.llama import HEAD, OUTER
from hfgrow.families.qwen3 import HEAD_NORMS
from hfgrow.families.table import Config, Family


def last_of_each_pattern(config: Config) -> dict[str, list[Any]]:
    """Derive `layer_types`: in every `sliding_window_pattern` layers the last is not sliding."""
    pattern = config.get("sliding_window_pattern", 6)
    return {
        "layer_types": [
            "sliding_attention" if (i + 1) % pattern else "full_attention"
            for i in range(config["num_hidden_layers"])
        ]
    }


GEMMA3_TEXT = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    layer=(*LAYER, *HEAD_NORMS),
    outer=OUTER,
    head=HEAD,
    tied_default=True,
    kv_heads_default=4,
    head_dim_default=256,
    derived_lists=last_of_each_pattern,
    centred_gains=True,
    embedding_scale=embedding_scale,
    softmax_scale_key="query_pre_attn_scalar",
    heads_divide_hidden=True,
)
