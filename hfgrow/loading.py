"""The config of a model folder as transformers opens it, without the settings of somebody's run."""

from pathlib import Path
from typing import Any

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder


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
