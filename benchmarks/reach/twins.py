"""What a grown model has to compute, by two ways that know nothing of config.json's rules.

The one runs the base's own layers in the order of the map, each with the arguments that it had in
the base. The other puts deep copies of the base's modules into the grown model's list.
"""

import copy
from collections.abc import Sequence
from typing import Any

_NUMBERS = ("layer_idx", "layer_id", "layer_number", "layer_index")
_STATES = ("hidden_states", "hidden_state", "x", "inputs")

Call = tuple[tuple[Any, ...], dict[str, Any]]


class NoTwinError(Exception):
    """A model's layers cannot be run one by one."""


def calls_of(model: Any, stack: str, tokens: Any) -> dict[int, Call]:
    """Return with what each layer is called.

    Raises:
        NoTwinError: One runs twice, or not at all.
    """
    import torch

    layers = model.get_submodule(stack)
    calls: dict[int, Call] = {}
    originals = [layer.forward for layer in layers]

    def recording(i: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if i in calls:
                raise NoTwinError("a layer runs twice")
            calls[i] = (args, kwargs)
            return originals[i](*args, **kwargs)

        return forward

    for i, layer in enumerate(layers):
        layer.forward = recording(i)
    try:
        with torch.inference_mode():
            model(tokens, use_cache=False)
    finally:
        for layer in layers:
            del layer.forward
    if len(calls) != len(layers):
        raise NoTwinError("a layer does not run")
    return calls


def composed_logits(model: Any, stack: str, layer_map: Sequence[int], tokens: Any) -> Any:
    """Return the logits of a base whose layers run in the order of a map.

    Raises:
        NoTwinError: The layers do not hand on one tensor.
    """
    import torch

    layers = model.get_submodule(stack)
    calls = calls_of(model, stack, tokens)
    hidden = state_of(calls[0])
    with torch.inference_mode():
        for source in layer_map:
            args, kwargs = with_state(calls[source], hidden)
            output = layers[source](*args, **kwargs)
            hidden = output[0] if isinstance(output, tuple | list) else output
    last = layers[len(layers) - 1]
    last.forward = _answering(last.forward, hidden)
    try:
        return run(model, tokens)
    finally:
        del last.forward


def copied_logits(base: Any, grown: Any, stack: str, layer_map: Sequence[int], tokens: Any) -> Any:
    """Return the logits of the grown model with deep copies of the base's layers in it."""
    twin = copy.deepcopy(grown)
    layers, sources = twin.get_submodule(stack), base.get_submodule(stack)
    for i, source in enumerate(layer_map):
        layers[i] = copy.deepcopy(sources[source])
        for module in layers[i].modules():
            for name in _NUMBERS:
                if type(getattr(module, name, None)) is int:
                    setattr(module, name, i)
    return run(twin, tokens)


def run(model: Any, tokens: Any) -> Any:
    """Return the logits of a forward pass without a cache."""
    import torch

    with torch.inference_mode():
        return model(tokens, use_cache=False).logits.clone()


def _answering(original: Any, hidden: Any) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        return type(output)((hidden, *output[1:])) if isinstance(output, tuple | list) else hidden

    return forward


def state_of(call: Call) -> Any:
    """Return the hidden states that a layer is called with.

    Raises:
        NoTwinError: It is called with none.
    """
    args, kwargs = call
    if args:
        return args[0]
    for name in _STATES:
        if name in kwargs:
            return kwargs[name]
    raise NoTwinError("a layer is given no hidden states")


def with_state(call: Call, hidden: Any) -> Call:
    """Return a call with other hidden states."""
    args, kwargs = call
    if args:
        return (hidden, *args[1:]), kwargs
    name = next(name for name in _STATES if name in kwargs)
    return (), {**kwargs, name: hidden}
