"""Granite: Llama's tensors, and multipliers that config.json fixes whatever the depth and width."""

from hfgrow.families.llama import ATTENTION_BIASES, HEAD, MATRICES, MLP_BIASES, OUTER
from hfgrow.families.table import Family

GRANITE = Family(
    model_type="granite",
    architecture="GraniteForCausalLM",
    layer=(*MATRICES, *ATTENTION_BIASES, *MLP_BIASES),
    outer=OUTER,
    head=HEAD,
    softmax_scale_key="attention_multiplier",
)
