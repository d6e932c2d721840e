"""Gemma: gains that are stored less 1, and embeddings scaled by the root of the hidden size."""

from struct import pack, unpack

from hfgrow.families.llama import ATTENTION_BIASES, HEAD, MATRICES, OUTER
from hfgrow.families.table import Family


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
    tied_default=True,
    kv_heads_default=16,
    head_dim_default=256,
    centred_gains=True,
    embedding_scale=embedding_scale,
)
