"""Phi-3, Phi-3.5 and Phi-4: q, k and v in one matrix, gate and up in another.

Only a share of each head may be rotated (`partial_rotary_factor`), and longrope has one factor for
each rotary pair. One sliding window is for all layers, so no list follows the depth.
"""

from hfgrow.plan.families.llama import (
    ATTENTION_OUT,
    FFN,
    HEAD,
    HIDDEN,
    KEY,
    MLP_OUT,
    NORMS,
    OUTER,
    QUERY,
    VALUE,
)
from hfgrow.plan.families.table import Config, Family, Role, class_defaults


def longrope_objection(config: Config) -> str:
    """Say why the config class refuses the factors of longrope: it counts the pairs of a head.

    It takes `hidden_size // num_attention_heads` for the size of a head, whatever head_dim says.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(key) or {}
    if not isinstance(rope, dict):
        return f"{key} must be an object"
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        return "partial_rotary_factor must be a number from 0 to 1"
    pairs = int(config["hidden_size"] // config["num_attention_heads"] * share) // 2
    for key in ("short_factor", "long_factor"):
        factors = rope.get(key)
        if factors is None:
            continue
        if not isinstance(factors, list):
            return f"{key} of longrope must be a list"
        if len(factors) != pairs:
            return (
                f"{key} of longrope has {len(factors)} factors, but hidden_size / "
                f"num_attention_heads calls for {pairs}"
            )
    return ""


PHI3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    layer=(
        *NORMS,
        Role("self_attn.qkv_proj.weight", ((*QUERY, *KEY, *VALUE), HIDDEN)),
        *ATTENTION_OUT,
        Role("mlp.gate_up_proj.weight", ((*FFN, *FFN), HIDDEN)),
        *MLP_OUT,
    ),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=32064, hidden=3072, ffn=8192, layers=32, heads=32),
    refuses=longrope_objection,
)
