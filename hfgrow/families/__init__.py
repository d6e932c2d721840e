"""The families hfgrow can grow: one table for each `model_type`."""

from hfgrow.families.gemma import GEMMA
from hfgrow.families.gemma2 import GEMMA2
from hfgrow.families.gemma3_text import GEMMA3_TEXT
from hfgrow.families.granite import GRANITE
from hfgrow.families.llama import LLAMA
from hfgrow.families.minicpm3 import MINICPM3
from hfgrow.families.mistral import MISTRAL
from hfgrow.families.olmo2 import OLMO2
from hfgrow.families.phi3 import PHI3
from hfgrow.families.qwen2 import QWEN2
from hfgrow.families.qwen3 import QWEN3
from hfgrow.families.smollm3 import SMOLLM3
from hfgrow.families.table import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family
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
}
