"""What layers are, beyond their numbers: classes, shapes, and every simple attribute.

Two layers with the same of all that compute the same of the same numbers, as long as nothing else
reaches them; that is what the proof on tiny models of a type says.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from hfgrow.plan.families.rewrite import DEPTHS

# What holds the number of a layer, or of a part of it, for the cache.
_NUMBERS = frozenset({"layer_idx", "layer_id", "layer_number"})
# Of a layer whose keys and values later ones take: of several copies the last one stores them.
_STORES = "store_full_length_kv"
_TAKES = "is_kv_shared_layer"
_SIMPLE = (bool, int, float, str, bytes, type(None), Enum)
# Where its config was read from, whether it trains, and what the layers or the files say better.
_SKIPPED = _NUMBERS | {
    "all_tied_weights_keys",
    "first_kv_shared_layer_idx",
    "name_or_path",
    "training",
}

Traits = Mapping[str, Any]


def traits_of(layer: Any) -> Traits:
    """Return what a layer is, its own number left out."""
    found: dict[str, Any] = {}
    for path, module in layer.named_modules():
        found.update(_attributes(path, module))
    return found


def all_traits(layers: Iterable[Any]) -> list[Traits]:
    """Return what each layer of a model is.

    Where no layer takes the keys and values of another, none is said to store them: Gemma 4 since
    transformers 5.24 says so of the last layer of each kind all the same, for its assistants.
    """
    found = [traits_of(layer) for layer in layers]
    if any(_says(_TAKES, traits) for traits in found):
        return found
    return [
        {name: value for name, value in traits.items() if name.rpartition(".")[2] != _STORES}
        for traits in found
    ]


def stores(traits: Traits) -> bool:
    """Say whether later layers take the keys and values of a layer."""
    return _says(_STORES, traits)


def _says(attribute: str, traits: Traits) -> bool:
    return any(value and name.rpartition(".")[2] == attribute for name, value in traits.items())


def kinds_of(traits: Sequence[Traits]) -> tuple[str, ...]:
    """Return the kind of every layer: A for the first, the next letter for one of another kind."""
    known: list[Traits] = []
    kinds = []
    for one in traits:
        if one not in known:
            known.append(one)
        kinds.append(_letter(known.index(one)))
    return tuple(kinds)


def outer_traits(model: Any, stack: str) -> Traits:
    """Return what is outside the layers: every attribute of every module there."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        if not f"{path}.".startswith(f"{stack}."):
            found.update(_attributes(path, module))
    return found


def difference(one: Traits, other: Traits, layer_map: Sequence[int], num_layers: int) -> str:
    """Return the first name under which two differ, and do not follow the depth; empty if none.

    Args:
        one: Of the base.
        other: Of the grown model.
        layer_map: For every layer of the grown model the 0-based layer of the base.
    """
    for name in {**one, **other}:
        old, new = one.get(name, ...), other.get(name, ...)
        last = name.rpartition(".")[2]
        if old == new or (last == _STORES and old and new is False):
            continue
        is_depth = last in DEPTHS and old == num_layers and new == len(layer_map)
        is_list = isinstance(old, list | tuple) and len(old) == num_layers
        if not is_depth and not (is_list and list(new) == [old[i] for i in layer_map]):
            return name
    return ""


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"K{index}"


def _attributes(path: str, module: Any) -> Iterator[tuple[str, Any]]:
    at = f"{path}." if path else ""
    yield f"{at}class", type(module).__qualname__
    for name, parameter in module._parameters.items():
        yield f"{at}{name}", None if parameter is None else tuple(parameter.shape)
    for name, buffer in module._buffers.items():
        kept = name not in module._non_persistent_buffers_set
        yield f"{at}{name}", None if buffer is None else (tuple(buffer.shape), kept)
    for name, value in vars(module).items():
        if name.startswith("_") or name in _SKIPPED:
            continue
        if _is_simple(value):
            yield f"{at}{name}", value
        elif callable(value) and hasattr(value, "__qualname__"):
            yield f"{at}{name}", value.__qualname__


def _is_simple(value: Any) -> bool:
    import torch

    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(_is_simple(key) and _is_simple(item) for key, item in value.items())
    return isinstance(value, (*_SIMPLE, torch.dtype))
