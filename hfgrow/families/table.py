"""What a family of models is: the roles of its tensors, their axes, and its config keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

Config = Mapping[str, Any]


class Stream(Enum):
    """What a tensor does to the residual stream."""

    READS = "reads"
    WRITES = "writes"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Role:
    """One tensor of a layer, or one outside the layers.

    Attributes:
        tensor: Its name, inside `model.layers.N.` for a role of a layer.
        axes: For each dimension of the stored shape, the axes whose sizes multiply to it.
        stream: Whether it reads or writes the residual stream.
        when: The config key that must be true for the tensor to exist; empty if it always does.
    """

    tensor: str
    axes: tuple[tuple[str, ...], ...]
    stream: Stream = Stream.NEITHER
    when: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture as a table.

    Attributes:
        model_type: The key in config.json.
        architecture: The class that transformers loads.
        layer: The roles of one layer.
        outer: The roles outside the layers, the head excepted.
        head: The output head, absent when it is tied to the embeddings.
        tied_default: `tie_word_embeddings` when config.json does not say.
        kv_heads_default: `num_key_value_heads` when config.json does not say; None means as many
            as there are query heads.
        head_dim_default: `head_dim` likewise; None means `hidden_size / num_attention_heads`.
        per_layer_lists: The config keys that hold one entry for each layer.
        derived_lists: What the model class derives for those keys when config.json lacks them.
        layer_counts: The config keys that must follow the number of layers.
    """

    model_type: str
    architecture: str
    layer: tuple[Role, ...]
    outer: tuple[Role, ...]
    head: Role
    tied_default: bool = False
    kv_heads_default: int | None = None
    head_dim_default: int | None = None
    per_layer_lists: tuple[str, ...] = ("layer_types",)
    derived_lists: Callable[[Config], Mapping[str, list[Any]]] | None = None
    layer_counts: tuple[str, ...] = ("num_hidden_layers",)

    @property
    def residual_writers(self) -> tuple[str, ...]:
        """The tensors of a layer that write the residual stream (o_proj, down_proj)."""
        return tuple(role.tensor for role in self.layer if role.stream is Stream.WRITES)

    def is_tied(self, config: Config) -> bool:
        """Say whether config.json ties the output head to the embeddings."""
        return bool(config.get("tie_word_embeddings", self.tied_default))

    def sizes(self, config: Config) -> dict[str, int]:
        """Return the size of every named axis."""
        heads = int(config["num_attention_heads"])
        # An explicit null means as many as query heads, whatever the default for a missing key.
        kv_heads = config.get("num_key_value_heads", self.kv_heads_default) or heads
        head_dim = (
            config.get("head_dim") or self.head_dim_default or int(config["hidden_size"]) // heads
        )
        return {
            "hidden": int(config["hidden_size"]),
            "ffn": int(config["intermediate_size"]),
            "vocab": int(config["vocab_size"]),
            "heads": heads,
            "kv_heads": int(kv_heads),
            "head_dim": int(head_dim),
        }

    def shapes(self, config: Config, *, tied: bool) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every tensor that a checkpoint with this config has."""
        sizes = self.sizes(config)
        num_layers = int(config["num_hidden_layers"])
        layer = [
            (role.tensor, _shape(role, sizes))
            for role in self.layer
            if not role.when or config.get(role.when)
        ]
        outer = self.outer if tied else (*self.outer, self.head)
        return {role.tensor: _shape(role, sizes) for role in outer} | {
            f"{layer_prefix(i)}{tensor}": shape
            for i in range(num_layers)
            for tensor, shape in layer
        }

    def per_layer(self, config: Config) -> dict[str, list[Any]]:
        """Return every per-layer list of the model, also those that the model class derives."""
        derived = dict(self.derived_lists(config)) if self.derived_lists else {}
        return derived | {
            key: list(config[key]) for key in self.per_layer_lists if config.get(key) is not None
        }


def layer_prefix(layer: int) -> str:
    """Return what the names of a layer's tensors start with."""
    return f"model.layers.{layer}."


def _shape(role: Role, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(prod(sizes[axis] for axis in axes) for axes in role.axes)
