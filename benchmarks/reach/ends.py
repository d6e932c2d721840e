"""What has to be zero for a layer to add nothing: found by experiment on the layers themselves.

All of a layer is set to zero, and then given back, tensor by tensor in the order in which their
modules ran, as long as the layer stays the identity. What cannot be given back are its branch ends.
A factor on the whole layer, such as Gemma 4's `layer_scalar`, has to be one instead.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from hfgrow.plan.families.derived import pattern_of

from .twins import NoTwinError, calls_of, state_of, with_state


def branch_ends(model: Any, stack: str, tokens: Any) -> dict[str, float]:
    """Return the tensors that have to hold one number, by their names in memory; empty if none.

    Args:
        model: A model on the CPU.
        stack: The name of its list of layers.
        tokens: What it is tried on.
    """
    try:
        calls = calls_of(model, stack, tokens)
    except NoTwinError:
        return {}
    found: dict[str, float] = {}
    for i, layer in enumerate(model.get_submodule(stack)):
        ends = _of_layer(layer, calls[i])
        if ends is None or any(found.get(name, value) != value for name, value in ends.items()):
            return {}
        found |= ends
    return found


def adds_nothing(model: Any, stack: str, ends: Mapping[str, float], tokens: Any) -> bool:
    """Say whether every layer of a model, its ends filled with their number, is the identity."""
    import torch

    calls = calls_of(model, stack, tokens)
    for i, layer in enumerate(model.get_submodule(stack)):
        twin = copy.deepcopy(layer)
        with torch.no_grad():
            for name, tensor in twin.state_dict(keep_vars=True).items():
                if pattern_of(name) in ends:
                    tensor.fill_(ends[pattern_of(name)])
        if not _is_identity(twin, calls[i]):
            return False
    return True


def patterns(names: Iterable[str], prefixes: Iterable[str]) -> set[str]:
    """Return the patterns of the names that are a layer's, under any of the prefixes."""
    found = set()
    for prefix in prefixes:
        for name in names:
            number, dot, rest = name.removeprefix(prefix).partition(".")
            if name.startswith(prefix) and dot and number.isdecimal():
                found.add(pattern_of(rest))
    return found


def _of_layer(layer: Any, call: Any) -> dict[str, float] | None:
    """Return the ends of one layer; None if no numbers make it the identity."""
    import torch

    twin = copy.deepcopy(layer)
    tensors = {
        name: tensor
        for name, tensor in twin.state_dict(keep_vars=True).items()
        if tensor.is_floating_point()
    }
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def set_all(names: Iterable[str], value: float) -> None:
        with torch.no_grad():
            for name in names:
                tensors[name].fill_(value)

    set_all(tensors, 0.0)
    ones: set[str] = set()
    if not _is_identity(twin, call):
        ones = {name for name, tensor in tensors.items() if tensor.numel() == 1}
        set_all(ones, 1.0)
        if not ones or not _is_identity(twin, call):
            return None
    ends: dict[str, float] = dict.fromkeys(map(pattern_of, ones), 1.0)
    for group in _groups(twin, [name for name in tensors if name not in ones], call):
        with torch.no_grad():
            for name in group:
                tensors[name].copy_(values[name])
        if not _is_identity(twin, call):
            set_all(group, 0.0)
            ends |= {pattern_of(name): 0.0 for name in group}
    return ends


def _is_identity(layer: Any, call: Any) -> bool:
    """Say whether a layer returns what it is called with, and random hidden states."""
    import torch

    hidden = state_of(call)
    generator = torch.Generator().manual_seed(3)
    for given in (hidden, torch.randn(hidden.shape, generator=generator)):
        args, kwargs = with_state(copy.deepcopy(call), given.clone())
        with torch.inference_mode():
            output = layer(*args, **kwargs)
        output = output[0] if isinstance(output, tuple | list) else output
        if output.shape != given.shape or not torch.equal(output, given):
            return False
    return True


def _groups(layer: Any, names: list[str], call: Any) -> list[list[str]]:
    """Return the tensors in the order in which their modules ran, all experts' together."""
    import torch

    order: dict[str, int] = {}
    handles = []
    for path, module in layer.named_modules():

        def ran(*_: Any, path: str = path) -> None:
            order.setdefault(path, len(order))

        handles.append(module.register_forward_hook(ran))
    args, kwargs = copy.deepcopy(call)
    with torch.inference_mode():
        layer(*args, **kwargs)
    for handle in handles:
        handle.remove()
    by_pattern: dict[str, list[str]] = {}
    for name in names:
        by_pattern.setdefault(pattern_of(name), []).append(name)

    def first(group: list[str]) -> tuple[int, int]:
        # A matrix comes before what is added to what it makes.
        places = [order.get(name.rpartition(".")[0], -1) for name in group]
        return max(places), names.index(group[0])

    return sorted(by_pattern.values(), key=first)


def on_disk(model: Any, stack: str, ends: Mapping[str, float]) -> dict[str, float]:
    """Return the ends under all names that files may have for them."""
    from transformers.core_model_loading import revert_weight_conversion

    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    found = dict(ends)
    for value in set(ends.values()):
        wanted = {
            name: tensor
            for name, tensor in state.items()
            if ends.get(pattern_of(_rest(name, stack))) == value
        }
        saved = revert_weight_conversion(model, wanted) if wanted else {}
        found |= {pattern: value for pattern in _layer_patterns(saved)}
    return found


def _rest(name: str, stack: str) -> str:
    return name.removeprefix(f"{stack}.").partition(".")[2] if name.startswith(f"{stack}.") else ""


def _layer_patterns(names: Iterable[str]) -> set[str]:
    """Return patterns of what stands behind the first number in each name."""
    found = set()
    for name in names:
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
        if at is not None:
            found.add(pattern_of(".".join(parts[at + 1 :])))
    return found
