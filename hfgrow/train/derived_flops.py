"""The arithmetic of a derived family, read off the model that transformers builds without numbers.

One rule for all: on its way forward a token is multiplied once with every matrix of its layers, 2
FLOPs a number, those of experts by the share that it passes; and each layer mixes tokens,

    2 heads (qk_dim + v_dim) keys     where it attends to `keys` others on average
    4 state, or 6 state               where it keeps a state of so many numbers

A state `S` is written, `S = a S + k v'`, and read, `q' S`: a multiplication and an addition for
each number, twice. The delta rule reads it once more, for what `k` finds there. Decays and the
chunks in which devices compute are not counted. The kernel of a short convolution is a matrix like
others: each number meets a token once. Backward costs twice what forward does.

Heads, windows and states are those that the model asks for when it runs, on tensors without
numbers, over some tokens: its attention is replaced by one that writes shapes down, its experts are
passed over, and the states are those of its cache. A layer whose attention is code of its own
counts by the keys and values in the cache; a model that cannot run so, by full attention of
config.json's heads. A state outside the cache is not counted.

Sources: Dao and Gu 2024, "Transformers are SSMs", https://arxiv.org/abs/2405.21060, Sec. 6.1 (the
recurrent form, linear in the size of the state); Yang et al. 2024, "Gated Delta Networks",
https://arxiv.org/abs/2412.06464, Eq. 10 (the delta rule); Fedus et al. 2021, "Switch Transformers",
https://arxiv.org/abs/2101.03961, Sec. 2 (experts that a token does not pass cost nothing)
"""

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

from hfgrow.checkpoint.derived.skeleton import (
    OTHERS,
    Form,
    Skeleton,
    layers_of,
    model_without_numbers,
    skeleton_of,
)
from hfgrow.plan.families.derived import experts_in, is_of_experts


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix that tokens are multiplied with.

    Attributes:
        layer: Its layer, from 0; None for one outside the layers.
        numbers: How many of its numbers a token meets, on average.
    """

    layer: int | None
    numbers: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a token passes on its way forward.

    Attributes:
        num_parameters: All parameters, tied ones once.
        num_active_parameters: Those that a token passes: of experts their share.
        num_non_embedding_parameters: Those outside embeddings and head.
        products: Name in files -> the matrix; the head by the name of the tensor that it is.
        mixing: For every layer the FLOPs of a token's attention and states.
        embeddings: The tensors that are looked up below the first layer.
        layer_of: The layer of a tensor by its name in files; None outside the layers.
    """

    num_parameters: int
    num_active_parameters: int
    num_non_embedding_parameters: int
    products: Mapping[str, Product]
    mixing: tuple[float, ...]
    embeddings: frozenset[str]
    layer_of: Callable[[str], int | None]


def mean_keys(window: int | None, num_tokens: int) -> float:
    """Return how many keys a query sees on average."""
    reach = num_tokens if window is None else min(window, num_tokens)
    return reach * (1 - reach / (2 * num_tokens))


def derived_work(config: Mapping[str, Any], num_tokens: int, names: Collection[str] = ()) -> Work:
    """Return what a token of a derived family passes.

    Args:
        config: What its config.json says.
        num_tokens: Tokens of a sequence.
        names: Names in files of some of its tensors, where files may have several.

    Raises:
        ModelError: transformers has no such model.
    """
    skeleton = skeleton_of(config)
    form = max(skeleton.forms, key=lambda one: len(one.shapes.keys() & set(names)))
    model = skeleton.model
    embedded = {id(p) for p in model.get_input_embeddings().parameters()}
    head = getattr(model.get_output_embeddings(), "weight", None)
    ends = embedded | {id(head)}
    numbers = {id(p): p.numel() for p in model.parameters()}
    in_memory = {
        name: p for name, p in model.named_parameters(remove_duplicate=False) if id(p) in embedded
    }

    def layer_of(name: str) -> int | None:
        number, dot, _ = name.removeprefix(form.stack).partition(".")
        is_inside = name.startswith(form.stack) and dot and number.isdecimal()
        return int(number) if is_inside else None

    products = dict(_inside(skeleton, form, layer_of))
    products |= {
        _in_files(name, form, skeleton): Product(None, module.weight.numel())
        for name, module in model.named_modules()
        if _is_linear(module)
        and not name.startswith(f"{skeleton.stack}.")
        and not OTHERS.search(name)
        and id(module.weight) not in ends
    }
    if head is not None:
        tied = next((name for name, p in in_memory.items() if p is head), None)
        name = tied or next(name for name, p in model.named_parameters() if p is head)
        products[_in_files(name, form, skeleton)] = Product(None, head.numel())
    share, num_experts = _share_of_experts(skeleton.settings)
    idle = sum(
        (1 - share) * prod(shape)
        for name, shape in form.shapes.items()
        if layer_of(name) is not None and is_of_experts(name, shape, num_experts)
    )
    return Work(
        num_parameters=sum(numbers.values()),
        num_active_parameters=sum(numbers.values()) - round(idle),
        num_non_embedding_parameters=sum(n for one, n in numbers.items() if one not in ends),
        products=products,
        mixing=tuple(
            layer.flops(num_tokens) for layer in _mixing(json.dumps(dict(config), sort_keys=True))
        ),
        embeddings=frozenset(_in_files(name, form, skeleton) for name in in_memory),
        layer_of=layer_of,
    )


def _inside(
    skeleton: Skeleton, form: Form, layer_of: Callable[[str], int | None]
) -> Iterator[tuple[str, Product]]:
    share, num_experts = _share_of_experts(skeleton.settings)
    buffers = {name.rpartition(".")[2] for name, _ in skeleton.layers.named_buffers()}
    for name, shape in form.shapes.items():
        layer, last = layer_of(name), name.rpartition(".")[2]
        if layer is None or len(shape) < 2 or last.endswith("bias") or last in buffers:
            continue
        part = share if is_of_experts(name, shape, num_experts) else 1.0
        yield name, Product(layer, prod(shape) * part)


def has_experts(settings: Mapping[str, Any]) -> bool:
    """Say whether a token passes some of several experts, by the config of the layers."""
    return experts_in(settings)[1] > 1


def _share_of_experts(settings: Mapping[str, Any]) -> tuple[float, int]:
    """Return the share of the experts that a token passes, and how many there are; or 1 and 0."""
    chosen, experts = experts_in(settings)
    return (chosen / experts, experts) if experts else (1.0, 0)


def _is_linear(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Linear)


def _in_files(name: str, form: Form, skeleton: Skeleton) -> str:
    """Return the name that a parameter outside the layers has in files."""
    name = name if name.endswith(".weight") else f"{name}.weight"
    bare = name.removeprefix(f"{skeleton.model.base_model_prefix}.")
    ends = [one for one in form.shapes if one in (name, bare)]
    last = name.rsplit(".", 2)[-2:]
    like = [one for one in form.shapes if one.rsplit(".", 2)[-2:] == last]
    return (ends or like or [name])[0]


@dataclass(slots=True)
class _Layer:
    """How a layer mixes tokens.

    Attributes:
        attends: Each attention in it: heads times the widths of a key and a value, and its window.
        state: The numbers of the state that it keeps for a sequence.
        state_flops: Those of a token, for each number.
    """

    attends: list[tuple[int, int | None]] = field(default_factory=list)
    state: int = 0
    state_flops: int = 4

    def flops(self, num_tokens: int) -> float:
        """Return the FLOPs of a token, forward."""
        keys = sum(width * mean_keys(window, num_tokens) for width, window in self.attends)
        return 2 * keys + self.state_flops * self.state


_NAME = "hfgrow_shapes"
_NUM_TOKENS = 16


@lru_cache(maxsize=8)
def _mixing(text: str) -> tuple[_Layer, ...]:
    """Return how each layer of the model of a config mixes tokens."""
    skeleton = skeleton_of(json.loads(text))
    # Without a mask some look for packed documents, with one for padding: in numbers not there.
    for is_masked in (False, True):
        with suppress(Exception):
            return _run(skeleton, is_masked=is_masked)
    keys = ("num_attention_heads", "head_dim", "hidden_size")
    heads, dim, hidden = (skeleton.settings.get(key) for key in keys)
    width = 2 * heads * dim if heads and dim else 2 * (hidden or 0)
    return tuple(_Layer([(width, None)]) for _ in skeleton.layers)


def _run(skeleton: Skeleton, *, is_masked: bool) -> tuple[_Layer, ...]:
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    content = {"architectures": [type(skeleton.model).__name__]}
    model = model_without_numbers(copy.deepcopy(skeleton.config), content)
    layers = layers_of(model)
    found = tuple(_Layer() for _ in layers)
    current = 0

    def written_down(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[Any, None]:
        width = query.shape[1] * (query.shape[-1] + value.shape[-1])
        window = sliding_window or getattr(module, "sliding_window", None)
        found[current].attends.append((width, window if type(window) is int else None))
        return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None

    def enter(number: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal current
            current = number

        return hook

    AttentionInterface.register(_NAME, written_down)
    AttentionMaskInterface.register(_NAME, eager_mask)
    model.set_attn_implementation(_NAME)
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(enter(number))
    for module in layers.modules():
        if type(module).__name__.endswith("Experts"):
            module.forward = lambda hidden, *_, **__: hidden
    tokens = torch.zeros(1, _NUM_TOKENS, dtype=torch.long, device="meta")
    with torch.no_grad():
        mask = torch.ones_like(tokens) if is_masked else None
        output = model(tokens, attention_mask=mask, use_cache=True)
    # transformers has one name for all of them since 5.24.
    names = ("cache",) if hasattr(output, "cache") else ("past_key_values", "cache_params")
    for name in names:
        _look_into(getattr(output, name, None), found, skeleton.text)
    for one, layer in zip(found, layers, strict=True):
        if any("Delta" in type(module).__name__ for module in layer.modules()):
            one.state_flops = 6
    return found


def _look_into(cache: Any, found: tuple[_Layer, ...], text: Any) -> None:
    """Take from a cache the states, and keys and values that no attention told of."""
    for one, kept in zip(found, getattr(cache, "layers", None) or (), strict=False):
        states = getattr(kept, "recurrent_states", None) or {}
        one.state = sum(state.numel() for state in states.values() if state is not None)
        keys, values = getattr(kept, "keys", None), getattr(kept, "values", None)
        if one.attends or keys is None or values is None or keys.ndim != 4:
            continue
        heads = getattr(text, "num_attention_heads", None) or keys.shape[1]
        window = getattr(kept, "sliding_window", None)
        one.attends.append((heads * (keys.shape[-1] + values.shape[-1]), window))
