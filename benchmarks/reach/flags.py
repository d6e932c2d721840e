"""The booleans of a config that decide what makes a layer add nothing: each is turned over once.

Branch ends are found with the defaults of a type. OPT with `do_layer_norm_before` off has a norm
behind the residual stream, and a layer with zeros at the same ends is no identity there.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from hfgrow.checkpoint.derived.skeleton import layers_of, text_part
from hfgrow.plan.families.derived import pattern_of

from .ends import adds_nothing
from .tiny import probe, tiny_config, tiny_model

# What a call returns, and how weights are shared or kept: no layer computes otherwise for it.
_OUTSIDE = re.compile(
    r"_.*|use_cache|return_dict|output_.*|tie_.*|torchscript|.*gradient_checkpointing|use_bfloat16"
)


def needs_of(model_type: str, zero: Mapping[str, Any], *, whole: bool = False) -> dict[str, bool]:
    """Return the flags, with their default, that a proof of layers that add nothing rests on.

    One is left out if the layers add nothing with its other value too, or have tensors there that
    the proof never saw, which the program refuses by itself.

    Args:
        model_type: The type.
        zero: What has to be zero, found with its defaults.
        whole: Whether the model sees too, if it can.
    """
    inside, text = text_part(tiny_config(model_type))
    found = {}
    for key, value in json.loads(text.to_json_string(use_diff=False)).items():
        if type(value) is not bool or _OUTSIDE.fullmatch(key):
            continue
        change: dict[str, Any] = {key: not value}
        for outer in reversed(inside):
            change = {outer: change}
        try:
            model = tiny_model(tiny_config(model_type, change), whole=whole)
            is_turned = getattr(text_part(model.config)[1], key) is not value
            holds = is_turned and _holds(model, zero)
        except Exception:  # transformers builds no such model, or does not run it
            holds = False
        if not holds:
            found[key] = value
    return found


def _holds(model: Any, zero: Mapping[str, Any]) -> bool:
    layers = layers_of(model)
    if any(pattern_of(name) not in zero["seen"] for layer in layers for name in layer.state_dict()):
        return True
    stack = next(name for name, module in model.named_modules() if module is layers)
    return adds_nothing(model, stack, zero["ends"], probe())
