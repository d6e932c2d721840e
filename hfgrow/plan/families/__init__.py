"""The families hfgrow can grow, one table for each `model_type`, and those that it refuses."""

from collections.abc import Mapping

from hfgrow.errors import UsageError, growth, printable
from hfgrow.plan.families.experts import FLEX_OLMO, MIXTRAL, QWEN2_MOE, QWEN3_MOE
from hfgrow.plan.families.gemma import GEMMA, GEMMA2, GEMMA3_TEXT, VAULTGEMMA
from hfgrow.plan.families.glm import GLM, GLM4
from hfgrow.plan.families.llama import GRANITE, LLAMA, MISTRAL
from hfgrow.plan.families.llama_like import (
    CWM,
    ERNIE4_5,
    GRANITE_SWA,
    HELIUM,
    INTERNLM3,
    IQUESTCODER,
    MINISTRAL,
    MINISTRAL3,
    SMOLLM3,
)
from hfgrow.plan.families.minicpm3 import MINICPM3
from hfgrow.plan.families.olmo2 import EXAONE4, OLMO2, OLMO3
from hfgrow.plan.families.phi3 import PHI3
from hfgrow.plan.families.qwen import HUNYUAN_V1_DENSE, QWEN2, QWEN3, SEED_OSS
from hfgrow.plan.families.table import Family


class _Families(dict[str, Family]):
    def __missing__(self, model_type: str) -> Family:
        raise UsageError(
            f"{printable(model_type)} has no table of its tensors in hfgrow: it grows in depth "
            "alone, as transformers builds it",
            hint=f"in depth: {growth('stack', g=2)}",
        )


FAMILIES: Mapping[str, Family] = _Families(
    (family.model_type, family)
    for family in (
        GEMMA,
        GEMMA2,
        GEMMA3_TEXT,
        GRANITE,
        LLAMA,
        MINICPM3,
        MISTRAL,
        OLMO2,
        PHI3,
        QWEN2,
        QWEN3,
        SMOLLM3,
        # Those that are near one of the above.
        CWM,
        ERNIE4_5,
        EXAONE4,
        GLM,
        GLM4,
        GRANITE_SWA,
        HELIUM,
        HUNYUAN_V1_DENSE,
        INTERNLM3,
        IQUESTCODER,
        MINISTRAL,
        MINISTRAL3,
        OLMO3,
        SEED_OSS,
        VAULTGEMMA,
        # Mixtures of experts.
        FLEX_OLMO,
        MIXTRAL,
        QWEN2_MOE,
        QWEN3_MOE,
    )
)

_REMOTE = "its code is not in transformers, and code in a model repository is never run"
_SEES = "a model of text and images whose text layers hfgrow cannot grow inside it"
_ENCODER = "no causal language model"
# The model types that people will try and hfgrow does not grow, and why.
NOT_GROWN: dict[str, str] = {
    "idefics3": _SEES,
    "kimi_k2": _REMOTE,
    "llava": _SEES,
    "mllama": _SEES,
    "paligemma": _SEES,
    "qwen2_5_vl": _SEES,
    "qwen2_vl": _SEES,
    "qwen3_vl": _SEES,
    "reformer": "its layers are reversible and hand on two streams",
    "rwkv": "its weights are divided by what follows the number of the layer",
    "smolvlm": _SEES,
    "t5": _ENCODER,
}
_RESCALED = "transformers divides out_proj by the root of the number of layers at every loading"
# Flags of config.json with which a type is not grown, and why.
NOT_GROWN_WITH: dict[str, tuple[str, str]] = {
    model_type: ("rescale_prenorm_residual", _RESCALED)
    for model_type in ("falcon_mamba", "mamba", "mamba2")
}
