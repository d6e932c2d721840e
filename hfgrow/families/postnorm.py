"""The rows of families with a norm behind attention and MLP: there the norm ends the branch."""

from dataclasses import replace

from hfgrow.families.llama import (
    ATTENTION_BIASES,
    ATTENTION_IN,
    ATTENTION_OUT,
    HIDDEN,
    MLP_IN,
    MLP_OUT,
)
from hfgrow.families.table import Kind, Role

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
