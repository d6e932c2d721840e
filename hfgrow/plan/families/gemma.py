"""Gemma: gains that are stored less 1, and embeddings scaled by the root of the hidden size.

Gemma 2: norms before and behind attention and MLP, and a sliding window in every other layer.

VaultGemma: Gemma 2 without the norms behind.

Gemma 3 without its vision tower: Gemma 2, norms on query and key heads, and a longer pattern.
"""

from dataclasses import replace
from functools import partial
from struct import pack, unpack

from hfgrow.plan.families.llama import (
    ATTENTION_BIASES,
    HEAD,
    HIDDEN,
    INNER,
    MATRICES,
    OUTER,
    POST_NORMS,
)
from hfgrow.plan.families.qwen import HEAD_NORMS
from hfgrow.plan.families.table import Family, Kind, Role, class_defaults, last_is_full, windowed

# The attention logits are divided by its root.
QUERY_SCALAR = "query_pre_attn_scalar"


def embedding_scale(hidden_size: int, dtype: str) -> float:
    """Return `sqrt(hidden_size)` as the class has it after loading weights of a dtype.

    The scale is a buffer of that dtype: 55.4256 is 55.5 in bfloat16.

    Args:
        hidden_size: The width of the residual stream.
        dtype: In safetensors' words.
    """
    exact = float(hidden_size**0.5)
    if dtype == "F64":
        return exact
    (single,) = unpack("<f", pack("<f", exact))
    if dtype == "F16":
        (half,) = unpack("<e", pack("<e", single))
        return float(half)
    return _as_bfloat16(single) if dtype == "BF16" else float(single)


def _as_bfloat16(value: float) -> float:
    """Round a float32 to its upper 16 bits, ties to even."""
    (bits,) = unpack("<I", pack("<f", value))
    bits += 0x7FFF + (bits >> 16 & 1)
    (rounded,) = unpack("<f", pack("<I", bits & 0xFFFF0000))
    return float(rounded)


GEMMA = Family(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    layer=(*MATRICES, *ATTENTION_BIASES),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=256000, hidden=3072, ffn=24576, layers=28, heads=16),
    tied_default=True,
    kv_heads_default=16,
    head_dim_default=256,
    centred_gains=True,
    embedding_scale=embedding_scale,
    begins_with_bos=True,
)

LAYER = (
    Role("input_layernorm.weight", (HIDDEN,), Kind.GAIN),
    Role("pre_feedforward_layernorm.weight", (HIDDEN,), Kind.GAIN),
    *POST_NORMS,
    *INNER,
)


GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    layer=LAYER,
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=256000, hidden=2304, ffn=9216, layers=26, heads=8),
    tied_default=True,
    kv_heads_default=4,
    head_dim_default=256,
    derived_lists=lambda config: windowed(config, lambda i: i % 2 == 0),
    centred_gains=True,
    embedding_scale=embedding_scale,
    begins_with_bos=True,
    softmax_scale_key=QUERY_SCALAR,
    heads_divide_hidden=True,
)

VAULTGEMMA = replace(
    GEMMA2,
    model_type="vaultgemma",
    architecture="VaultGemmaForCausalLM",
    layer=(*LAYER[:2], *MATRICES[2:], *ATTENTION_BIASES),
)


GEMMA3_TEXT = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    layer=(*LAYER, *HEAD_NORMS),
    outer=OUTER,
    head=HEAD,
    class_defaults=class_defaults(vocab=262208, hidden=2304, ffn=9216, layers=26, heads=8),
    tied_default=True,
    kv_heads_default=4,
    head_dim_default=256,
    derived_lists=partial(last_is_full, pattern=6),
    centred_gains=True,
    embedding_scale=embedding_scale,
    begins_with_bos=True,
    softmax_scale_key=QUERY_SCALAR,
    heads_divide_hidden=True,
)
