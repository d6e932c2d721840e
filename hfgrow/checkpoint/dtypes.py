"""The dtypes hfgrow knows: as config.json, safetensors and torch spell them."""

from typing import Any

# The dtypes config.json may name -> as safetensors spells them.
CONFIG_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
CONFIG_NAMES = {dtype: name for name, dtype in CONFIG_DTYPES.items()}


def torch_dtype(dtype: str) -> Any:
    """Return the torch dtype of a dtype in safetensors' words."""
    import torch

    return getattr(torch, CONFIG_NAMES[dtype])
