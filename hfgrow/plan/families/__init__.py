"""The families hfgrow can grow: one table for each `model_type`."""

from collections.abc import Mapping

from hfgrow.errors import UsageError, growth, printable
from hfgrow.plan.families.gemma import GEMMA, GEMMA2, GEMMA3_TEXT
from hfgrow.plan.families.llama import GRANITE, LLAMA, MISTRAL
from hfgrow.plan.families.minicpm3 import MINICPM3
from hfgrow.plan.families.olmo2 import OLMO2
from hfgrow.plan.families.phi3 import PHI3
from hfgrow.plan.families.qwen import QWEN2, QWEN3
from hfgrow.plan.families.smollm3 import SMOLLM3
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
    )
)
