"""Mistral: Llama's tensors; one sliding window for all layers, so no list follows the depth."""

from hfgrow.families.llama import HEAD, MATRICES, OUTER
from hfgrow.families.table import Family

MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    layer=MATRICES,
    outer=OUTER,
    head=HEAD,
    kv_heads_default=8,
)
