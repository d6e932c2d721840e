"""A derived family: what transformers' own model of a config says, for growth in depth.

A written family is a table of roles. A derived one knows no roles: which tensors a layer has, which
kind each layer is of, and where in config.json the settings of the layers lie. That is enough for
every growth whose layers are copies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

_MOST_RUNS = 12
# The names that config classes have for the experts a token passes, and for those of a layer.
_CHOSEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True)
class DerivedFamily:
    """One config as transformers builds it.

    Attributes:
        model_type: The key in config.json.
        architecture: The class that transformers loads.
        version: That of transformers, which is to be trusted for this.
        stack: What the names of the layers' tensors start with in the files: `model.layers.`.
        inside: The keys that lead to the settings of the layers in config.json; none in most.
        settings: Those settings with transformers' defaults filled in, as JSON.
        kinds: For every layer its kind; layers of one kind have the same classes, shapes and
            attributes.
        embeddings: The names of the embeddings and of the output head.
        tables: Tensors outside the layers with a part for each layer -> their axis.
        sizes: The size of every axis that is known, by its name.
        ends: Tensors of a layer that adds nothing, numbers in their names as `*` -> the one number
            that they hold; empty if a layer of this type never adds nothing.
        seen: The tensors of layers, named alike, that this was found out on.
    """

    model_type: str
    architecture: str
    version: str
    stack: str
    inside: tuple[str, ...]
    settings: Mapping[str, Any]
    kinds: tuple[str, ...]
    embeddings: frozenset[str]
    tables: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    ends: Mapping[str, float] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()

    def layer_of(self, name: str) -> tuple[int, str] | None:
        """Part the name of a layer's tensor in layer and rest; None for one outside the layers."""
        number, dot, rest = name.removeprefix(self.stack).partition(".")
        if name.startswith(self.stack) and dot and number.isdecimal():
            return int(number), rest
        return None

    def settings_of(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a config.json itself says of the layers."""
        for key in self.inside:
            config = config.get(key) or {}
        return config

    def with_settings(
        self, config: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return a config.json that says something else of the layers."""
        return _replaced(config, self.inside, settings)


def experts_in(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many experts a token passes, and how many a layer has; 0, 0 if dense."""
    # One class keeps them in a part of its config.
    parts = (settings, *(value for value in settings.values() if isinstance(value, Mapping)))
    for part in parts:
        chosen, experts = _count(part, _CHOSEN), _count(part, _EXPERTS)
        if chosen and experts:
            return min(chosen, experts), experts
    return 0, 0


def _count(settings: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    """Return the first number under a key, or in a list that has the same for every layer."""
    for key in keys:
        value = settings.get(key)
        if isinstance(value, list) and value and value.count(value[0]) == len(value):
            value = value[0]
        if type(value) is int:
            return value
    return None


def is_of_experts(name: str, shape: Sequence[int], num_experts: int) -> bool:
    """Say whether a tensor of a layer is that of an expert, or of all experts of the layer."""
    is_stacked = len(shape) == 3 and shape[0] == num_experts and shape[1] > 1
    return is_stacked or "experts" in name.split(".")


def pattern_of(name: str) -> str:
    """Return the name of a layer's tensor with `*` for every number, such as those of experts."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _replaced(
    config: Mapping[str, Any], inside: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    if not inside:
        return dict(settings)
    key, *rest = inside
    return {**config, key: _replaced(config.get(key) or {}, rest, settings)}


def rhythm(kinds: Sequence[str]) -> tuple[int, int] | None:
    """Return how many layers come first, and the period of the kinds after them.

    None if the kinds have no period that comes at least twice.
    """
    num_layers = len(kinds)
    for prefix in range(num_layers):
        for period in range(1, (num_layers - prefix) // 2 + 1):
            if all(kinds[i] == kinds[i + period] for i in range(prefix, num_layers - period)):
                return prefix, period
    return None


def describe_rhythm(kinds: Sequence[str]) -> str:
    """Return kinds of layers in runs, and the period that they have: `3A B 3A B; period 4`."""
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    shown = " ".join(
        f"{number}{kind}" if number > 1 else kind for kind, number in runs[:_MOST_RUNS]
    )
    more = " ..." if len(runs) > _MOST_RUNS else ""
    found = rhythm(kinds)
    if found is None:
        return f"{shown}{more}; no period"
    first, period = found
    return f"{shown}{more}; period {period}" + (f" behind the first {first}" if first else "")
