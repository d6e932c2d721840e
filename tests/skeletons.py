"""Models of any size without their weights: configs, classes on no device, files full of holes."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import INDEX
from hfgrow.checkpoint.header import build_header
from hfgrow.plan.families import FAMILIES
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


def write_sparse(folder: Path, config: Mapping[str, Any], num_shards: int) -> None:
    """Write a checkpoint of any size in bfloat16 whose weights are holes."""
    (folder / "config.json").write_text(json.dumps(config))
    family, tied = FAMILIES[config["model_type"]], config["tie_word_embeddings"]
    shapes = list(family.shapes(config, tied=tied).items())
    step = -(-len(shapes) // num_shards)
    weight_map: dict[str, str] = {}
    for i in range(num_shards):
        name = f"model-{i + 1:05}-of-{num_shards:05}.safetensors"
        part = shapes[i * step : (i + 1) * step]
        raw = build_header([(n, "BF16", shape) for n, shape in part], metadata={"format": "pt"})
        with (folder / name).open("wb") as file:
            file.write(raw)
            file.truncate(len(raw) + 2 * sum(prod(shape) for _, shape in part))
        weight_map |= {n: name for n, _ in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
