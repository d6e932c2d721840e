"""Llama, and the rows that its relatives share.

Shapes are in stored order, `[out, in]`.
"""

from hfgrow.families.table import Family, Role, Stream

HIDDEN = ("hidden",)
FFN = ("ffn",)
QUERY = ("heads", "head_dim")
KEY_VALUE = ("kv_heads", "head_dim")

OUTER = (
    Role("model.embed_tokens.weight", (("vocab",), HIDDEN), Stream.WRITES),
    Role("model.norm.weight", (HIDDEN,), Stream.READS),
)
HEAD = Role("lm_head.weight", (("vocab",), HIDDEN), Stream.READS)

MATRICES = (
    Role("input_layernorm.weight", (HIDDEN,), Stream.READS),
    Role("self_attn.q_proj.weight", (QUERY, HIDDEN), Stream.READS),
    Role("self_attn.k_proj.weight", (KEY_VALUE, HIDDEN), Stream.READS),
    Role("self_attn.v_proj.weight", (KEY_VALUE, HIDDEN), Stream.READS),
    Role("self_attn.o_proj.weight", (HIDDEN, QUERY), Stream.WRITES),
    Role("post_attention_layernorm.weight", (HIDDEN,), Stream.READS),
    Role("mlp.gate_proj.weight", (FFN, HIDDEN), Stream.READS),
    Role("mlp.up_proj.weight", (FFN, HIDDEN), Stream.READS),
    Role("mlp.down_proj.weight", (HIDDEN, FFN), Stream.WRITES),
)


def query_key_value_biases(when: str = "") -> tuple[Role, ...]:
    """Return the rows of the biases of q, k and v."""
    return (
        Role("self_attn.q_proj.bias", (QUERY,), when=when),
        Role("self_attn.k_proj.bias", (KEY_VALUE,), when=when),
        Role("self_attn.v_proj.bias", (KEY_VALUE,), when=when),
    )


ATTENTION_BIASES = (
    *query_key_value_biases("attention_bias"),
    Role("self_attn.o_proj.bias", (HIDDEN,), Stream.WRITES, "attention_bias"),
)
MLP_BIASES = (
    Role("mlp.gate_proj.bias", (FFN,), when="mlp_bias"),
    Role("mlp.up_proj.bias", (FFN,), when="mlp_bias"),
    Role("mlp.down_proj.bias", (HIDDEN,), Stream.WRITES, "mlp_bias"),
)

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    layer=(*MATRICES, *ATTENTION_BIASES, *MLP_BIASES),
    outer=OUTER,
    head=HEAD,
)
