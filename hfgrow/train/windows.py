"""How far back each layer of a model sees."""

from collections.abc import Mapping
from typing import Any

# One window for all layers, and no list of layer types.
_ONE_WINDOW = ("mistral", "phi3")


def layer_windows(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return the sliding window of every layer, in tokens; None for a layer that sees all.

    Args:
        config: A model's config with all defaults filled in, as transformers' `to_dict` gives it.
    """
    window = config.get("sliding_window")
    num_layers = int(config["num_hidden_layers"])
    if config["model_type"] in _ONE_WINDOW:
        return (window,) * num_layers
    kinds = config.get("layer_types") or ("full_attention",) * num_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
