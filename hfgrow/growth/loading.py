"""Open models with transformers, and ask for the packages that takes."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.derived.skeleton import loaded_config, model_class
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, foreign, require
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan, stored_in
from hfgrow.plan.tensors import predictor_of

_FLOATS = ("Infinity", "-Infinity", "NaN")


def transformers_config(folder: Path) -> Any:
    """Return the config of a model for `from_pretrained`; what transformers raises goes through.

    A published config may ask for an attention that is not installed here.

    Raises:
        ModelError: The config cannot be read, or contradicts itself.
    """
    config, _, _ = read_config(LocalFolder(folder))
    return config_of(config)


def config_of(content: Mapping[str, Any]) -> Any:
    """Return the config that transformers makes of a config.json; what it raises goes through."""
    if content.get("model_type") not in FAMILIES:
        return loaded_config(content)
    from transformers import AutoConfig

    any_config: Any = AutoConfig
    return any_config.for_model(**{key: _with_floats(value) for key, value in content.items()})


def _with_floats(value: Any) -> Any:
    """Return a value of config.json with the numbers that JSON lacks, as transformers has them.

    It writes infinity as `{"__float__": "Infinity"}`, and reads it so only from a file.
    """
    if isinstance(value, list):
        return [_with_floats(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__float__"} and value["__float__"] in _FLOATS:
        return float(value["__float__"])
    return {key: _with_floats(one) for key, one in value.items()}


def filled_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json with transformers' defaults filled in.

    That of a derived family stays as it is: its model says more than its config.

    Raises:
        ModelError: transformers refuses it.
    """
    if config.get("model_type") not in FAMILIES:
        return dict(config)
    with foreign(lambda said: ModelError(f"config.json: transformers refuses it: {said}")):
        filled: dict[str, Any] = config_of(config).to_dict()
    return {**filled, "model_type": config["model_type"]}


def filled_settings(plan: GrowthPlan) -> Mapping[str, Any]:
    """Return what config.json says of the layers, with transformers' defaults filled in.

    Raises:
        ModelError: transformers refuses it.
    """
    return plan.settings if plan.derived else filled_config(plan.config)


def silence_transformers() -> None:
    """Import transformers, with its own bars and notices switched off."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no annotations
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # nor has it


def loaded_model(folder: Path, config: Any, *, dtype: Any, **options: Any) -> Any:
    """Load a model: weights from safetensors alone, no code of the folder, nothing from the Hub.

    What transformers raises goes through.

    Args:
        config: As `transformers_config` gives it.
        dtype: That of its parameters, or "auto" for those they are stored in.
        options: What else `from_pretrained` is to know.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no annotations
    any_model: Any = AutoModelForCausalLM
    if config.model_type not in FAMILIES:
        # A model of text and images is more than its language model.
        any_model = model_class(config, {"architectures": config.architectures})
    renamed = {f"^{re.escape(stored)}$": name for name, stored in renamed_tensors(folder).items()}
    return any_model.from_pretrained(
        folder,
        config=config,
        **({"key_mapping": renamed} if renamed else {}),
        dtype=dtype,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        **options,
    )


def renamed_tensors(folder: Path) -> dict[str, str]:
    """Return the tensors of a model that are stored under other names: name -> name in the file.

    transformers finds those that only lack the prefix of the backbone; of any other it would take
    random numbers.
    """
    tensors = read(LocalFolder(folder)).tensors
    stored = {name: stored_in(tensor).name for name, tensor in tensors.items()}
    return {name: found for name, found in stored.items() if name != found}


def built_model(config: Any, **options: Any) -> Any:
    """Build the model of a config, its weights at random; what transformers raises goes through."""
    from transformers import AutoModelForCausalLM

    any_model: Any = AutoModelForCausalLM
    if config.model_type not in FAMILIES:
        wanted = model_class(config, {"architectures": config.architectures})
        return wanted._from_config(config, **options)
    return any_model.from_config(config, trust_remote_code=False, **options)


def skeleton(config: Any) -> Any:
    """Build the model of a config on the meta device: names and shapes without numbers."""
    import torch

    with torch.device("meta"):
        return built_model(config)


def available_nbytes() -> int | None:
    """Return the memory to be had inside the limit of the container; None if that is unknown."""
    limits = []
    with suppress(OSError, ValueError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        limits += [int(found[1]) * 1024] if found else []
    with suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits, default=None)


# What may be needed to compute tensors; copies, and zeros, need neither.
COMPUTING = ("torch", "numpy")
# What training imports beyond what growth does.
TRAINING = ("torch", "transformers", "accelerate", "safetensors", "numpy", "tokenizers")


def require_for(plan: GrowthPlan) -> None:
    """Refuse a plan with tensors to compute where that cannot be done.

    Raises:
        UsageError: What computes them is not installed.
    """
    if any(predictor_of(tensor.recipe) for tensor in plan.tensors.values()):
        require("computing tensors", *COMPUTING)
    elif plan.computes:
        require("computing tensors", "numpy", extra=None)
