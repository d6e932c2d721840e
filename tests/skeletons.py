"""Configs of every family, and the classes of transformers without memory for their weights."""

from collections.abc import Mapping
from typing import Any

from tests.checkpoints import SIZES

# What a class cannot do without.
NEEDED: dict[str, dict[str, Any]] = {
    "cwm": {"bos_token_id": 1},
    "helium": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "flex_olmo": {"num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 24,
    },
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


def config_of(model_type: str = "", /, **changes: Any) -> dict[str, Any]:
    """Return the config of a tiny model; the value `...` takes a key away."""
    settings = SIZES | NEEDED.get(model_type, {}) | changes
    return {key: value for key, value in settings.items() if value is not ...}


def skeleton(model_type: str, config: Mapping[str, Any]) -> Any:
    """Return the model class of transformers, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto_model.from_config(AutoConfig.for_model(model_type, **config))
