"""The families hfgrow can grow: one table for each `model_type`."""

from hfgrow.families.llama import LLAMA
from hfgrow.families.mistral import MISTRAL
from hfgrow.families.qwen2 import QWEN2
from hfgrow.families.qwen3 import QWEN3
from hfgrow.families.smollm3 import SMOLLM3
from hfgrow.families.table import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3)
}
