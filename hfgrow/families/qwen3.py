"""Qwen3: norms on every query and key head, a head_dim of its own, and a list of layer types."""

from hfgrow.families.llama import ATTENTION_BIASES, HEAD, MATRICES, OUTER
from hfgrow.families.qwen2 import window_layer_types
from hfgrow.families.table import Family, Kind, Role

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
    kv_heads_default=32,
    head_dim_default=128,
    derived_lists=window_layer_types,
    layer_counts=("num_hidden_layers", "max_window_layers"),
)
