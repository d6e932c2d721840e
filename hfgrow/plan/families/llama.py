"""Llama, and the rows that its relatives share.

Shapes are in stored order, `[out, in]`.

Mistral: Llama's tensors; one sliding window for all layers, so no list follows the depth.

Granite: Llama's tensors, and multipliers that config.json fixes whatever the depth and width.

The rows of families with a norm behind attention and MLP: there the norm ends the branch.
"""

from dataclasses import replace

from hfgrow.plan.families.table import Config, Family, Kind, Role, class_defaults

VOCAB = (("vocab",),)
HIDDEN = (("hidden",),)
FFN = (("ffn",),)
QUERY = (("heads", "qk_dim"),)
KEY = (("kv_heads", "qk_dim"),)
VALUE = (("kv_heads", "head_dim"),)
# What the heads give: a weighted mean of values for each query head.
ATTENDED = (("heads", "head_dim"),)

OUTER = (
    Role("model.embed_tokens.weight", (VOCAB, HIDDEN), Kind.EMBEDDING),
    Role("model.norm.weight", (HIDDEN,), Kind.GAIN),
)
HEAD = Role("lm_head.weight", (VOCAB, HIDDEN))

NORMS = (
    Role("input_layernorm.weight", (HIDDEN,), Kind.GAIN),
    Role("post_attention_layernorm.weight", (HIDDEN,), Kind.GAIN),
)
ATTENTION_IN = (
    Role("self_attn.q_proj.weight", (QUERY, HIDDEN)),
    Role("self_attn.k_proj.weight", (KEY, HIDDEN)),
    Role("self_attn.v_proj.weight", (VALUE, HIDDEN)),
)
MLP_IN = (
    Role("mlp.gate_proj.weight", (FFN, HIDDEN)),
    Role("mlp.up_proj.weight", (FFN, HIDDEN)),
)
ATTENTION_OUT = (Role("self_attn.o_proj.weight", (HIDDEN, ATTENDED), ends_branch=True),)
MLP_OUT = (Role("mlp.down_proj.weight", (HIDDEN, FFN), ends_branch=True),)
MATRICES = (*NORMS, *ATTENTION_IN, *ATTENTION_OUT, *MLP_IN, *MLP_OUT)


def query_key_value_biases(when: str = "") -> tuple[Role, ...]:
    """Return the rows of the biases of q, k and v."""
    return (
        Role("self_attn.q_proj.bias", (QUERY,), Kind.BIAS, when),
        Role("self_attn.k_proj.bias", (KEY,), Kind.BIAS, when),
        Role("self_attn.v_proj.bias", (VALUE,), Kind.BIAS, when),
    )


OUT_BIAS = Role("self_attn.o_proj.bias", (HIDDEN,), Kind.BIAS, "attention_bias", ends_branch=True)
ATTENTION_BIASES = (*query_key_value_biases("attention_bias"), OUT_BIAS)
MLP_BIASES = (
    Role("mlp.gate_proj.bias", (FFN,), Kind.BIAS, "mlp_bias"),
    Role("mlp.up_proj.bias", (FFN,), Kind.BIAS, "mlp_bias"),
    Role("mlp.down_proj.bias", (HIDDEN,), Kind.BIAS, "mlp_bias", ends_branch=True),
)

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    layer=(*MATRICES, *ATTENTION_BIASES, *MLP_BIASES),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=32000, hidden=4096, ffn=11008, layers=32, heads=32),
    heads_divide_hidden=True,
)

MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    layer=MATRICES,
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=32000, hidden=4096, ffn=14336, layers=32, heads=32),
    kv_heads_default=8,
)

GRANITE = Family(
    model_type="granite",
    architecture="GraniteForCausalLM",
    layer=(*MATRICES, *ATTENTION_BIASES, *MLP_BIASES),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=32000, hidden=4096, ffn=11008, layers=32, heads=32),
    softmax_scale_key="attention_multiplier",
)

# A projection in front of a norm ends no branch: at zero its gradient would be as large as
# 1 / sqrt(rms_norm_eps), while a gain of zero trains as usual.
INNER = tuple(
    replace(role, ends_branch=False)
    for role in (*ATTENTION_IN, *ATTENTION_OUT, *MLP_IN, *MLP_OUT, *ATTENTION_BIASES)
)
POST_NORMS = (
    Role("post_attention_layernorm.weight", (HIDDEN,), Kind.GAIN, ends_branch=True),
    Role("post_feedforward_layernorm.weight", (HIDDEN,), Kind.GAIN, ends_branch=True),
)


def head_dim_objection(config: Config) -> str:
    """Say what a class cannot do without that derives no head_dim."""
    return "" if config.get("head_dim") else "head_dim is missing, and the class derives none"
