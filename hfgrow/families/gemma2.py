"""Gemma 2: norms before and behind attention and MLP, and a sliding window in every other layer."""

from typing import Any

from hfgrow.families.gemma import embedding_scale
from hfgrow.families.llama import HEAD, HIDDEN, OUTER
from hfgrow.families.postnorm import INNER, POST_NORMS
from hfgrow.families.table import Config, Family, Kind, Role

LAYER = (
    Role("input_layernorm.weight", (HIDDEN,), Kind.GAIN),
    Role("pre_feedforward_layernorm.weight", (HIDDEN,), Kind.GAIN),
    *POST_NORMS,
    *INNER,
)


def every_other_layer(config: Config) -> dict[str, list[Any]]:
    """Derive `layer_types`: the first layer is sliding, the second is not, and so on."""
    kinds = ("sliding_attention", "full_attention")
    return {"layer_types": [kinds[i % 2] for i in range(config["num_hidden_layers"])]}


GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    layer=LAYER,
    outer=OUTER,
    head=HEAD,
    tied_default=True,
    kv_heads_default=4,
    head_dim_default=256,
    derived_lists=every_other_layer,
    centred_gains=True,
    embedding_scale=embedding_scale,
    softmax_scale_key="query_pre_attn_scalar",
    heads_divide_hidden=True,
)
