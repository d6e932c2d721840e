"""GLM-4 as of 2024: biases on q, k and v unless config.json says no, gate and up in one matrix.

GLM-4 as of 2025: norms in front of attention and MLP, and behind them. Both rotate half of each
head, neighbour by neighbour.
"""

from dataclasses import replace

from hfgrow.plan.families.llama import (
    ATTENTION_IN,
    ATTENTION_OUT,
    FFN,
    HEAD,
    HIDDEN,
    MLP_OUT,
    NORMS,
    OUTER,
    query_key_value_biases,
)
from hfgrow.plan.families.llama_like import NEIGHBOURS_ROTATE
from hfgrow.plan.families.table import Family, Kind, Role, class_defaults

GLM = Family(
    model_type="glm",
    architecture="GlmForCausalLM",
    class_defaults=class_defaults(vocab=151552, hidden=4096, ffn=13696, layers=40, heads=32),
    layer=(
        *NORMS,
        *ATTENTION_IN,
        *query_key_value_biases("attention_bias"),
        *ATTENTION_OUT,
        Role("mlp.gate_up_proj.weight", ((*FFN, *FFN), HIDDEN)),
        *MLP_OUT,
    ),
    outer=OUTER,
    head=HEAD,
    kv_heads_default=2,
    head_dim_default=128,
    on_by_default=("attention_bias",),
    fixed_axes=NEIGHBOURS_ROTATE,
)

GLM4 = replace(
    GLM,
    model_type="glm4",
    architecture="Glm4ForCausalLM",
    layer=(
        # A projection in front of a norm ends no branch; see POST_NORMS.
        *(replace(role, ends_branch=False) for role in GLM.layer),
        Role("post_self_attn_layernorm.weight", (HIDDEN,), Kind.GAIN, ends_branch=True),
        Role("post_mlp_layernorm.weight", (HIDDEN,), Kind.GAIN, ends_branch=True),
    ),
)
