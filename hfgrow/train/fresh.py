"""A model that does not exist yet: random weights after its config, and somebody's tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from hfgrow.checkpoint.sidefiles import side_files_of
from hfgrow.checkpoint.staging import staged
from hfgrow.errors import UsageError, printable
from hfgrow.names import CONFIG
from hfgrow.train.recipe_parts import FreshModel
from hfgrow.train.weights import write_weights


def write_fresh(fresh: FreshModel, tokenizer: Path, seed: int, target: Path) -> None:
    """Write a model of random weights, as transformers initialises them.

    Args:
        fresh: Its config.
        tokenizer: A model folder whose tokenizer it has.
        seed: Decides the weights.
        target: The folder to make.

    Raises:
        UsageError: transformers refuses the config.
        OutputError: It cannot be written.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    auto_config, auto_model = AutoConfig, AutoModelForCausalLM
    settings: dict[str, Any] = dict(fresh.config)
    model_type = settings.pop("model_type")
    torch.manual_seed(seed)
    try:
        config: Any = auto_config.for_model(model_type, **settings)
        model: Any = auto_model.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UsageError(
            f"base.config: transformers refuses it: {printable(error, 300)}"
        ) from error
    content = json.loads(model.config.to_json_string(use_diff=False))
    content = {key: value for key, value in content.items() if value is not None}
    content |= {"architectures": [type(model).__name__], "dtype": "float32"}
    with staged(target) as staging:
        write_weights(staging, {name: p.detach() for name, p in model.named_parameters()})
        (staging / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for name in side_files_of(tokenizer):
            shutil.copyfile(tokenizer / name, staging / name)
