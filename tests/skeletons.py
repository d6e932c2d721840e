"""Configs of every family, and the classes of transformers without memory for their weights."""

from collections.abc import Mapping
from typing import Any

from tests.checkpoints import SIZES


def config_of(**changes: Any) -> dict[str, Any]:
    """Return the config of a tiny model; the value `...` takes a key away."""
    return {key: value for key, value in (SIZES | changes).items() if value is not ...}


def skeleton(model_type: str, config: Mapping[str, Any]) -> Any:
    """Return the model class of transformers, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto_model.from_config(AutoConfig.for_model(model_type, **config))
