"""What opens a model with transformers: quiet classes, and configs without a run's settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.errors import ModelError, foreign


def transformers_config(folder: Path) -> Any:
    """Return the config of a model for `from_pretrained`; what transformers raises goes through.

    A published config may ask for an attention that is not installed here.

    Raises:
        ModelError: The config cannot be read, or contradicts itself.
    """
    from transformers import AutoConfig

    config, _, _ = read_config(LocalFolder(folder))
    any_config: Any = AutoConfig
    return any_config.for_model(**config)


def filled_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json with transformers' defaults filled in.

    Raises:
        ModelError: transformers refuses it.
    """
    from transformers import AutoConfig

    any_config: Any = AutoConfig
    with foreign(lambda said: ModelError(f"config.json: transformers refuses it: {said}")):
        filled: dict[str, Any] = any_config.for_model(**config).to_dict()
    return {**filled, "model_type": config["model_type"]}


def auto_model() -> Any:
    """Import transformers, with its own bars and notices switched off."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no annotations
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # nor has it
    return AutoModelForCausalLM
