"""What a family of models is: the roles of its tensors, their axes, and its config keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod
from typing import Any

Config = Mapping[str, Any]
# A dimension of a stored shape: a sum of products of named axes. Most have one product, such as
# heads times head_dim; fused tensors have several, one after the other.
Dimension = tuple[tuple[str, ...], ...]

# The config key that holds the size of an axis, where there is one.
AXIS_KEYS: Mapping[str, str] = {
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab": "vocab_size",
}


class Kind(Enum):
    """What a tensor is in the computation, which says how it grows with its axes."""

    # y = W x, stored [out, in].
    LINEAR = "linear"
    # Rows of the vocabulary, each written to the residual stream.
    EMBEDDING = "embedding"
    # Added to what a linear map writes.
    BIAS = "bias"
    # The gain of an RMSNorm over its axis.
    GAIN = "gain"


@dataclass(frozen=True, slots=True)
class Role:
    """One tensor of a layer, or one outside the layers.

    Attributes:
        tensor: Its name, inside `model.layers.N.` for a role of a layer; a `*` stands for the
            number of an expert.
        dimensions: For each dimension of the stored shape, the axes that make it up.
        kind: What it is in the computation.
        when: The config key that must be true for the tensor to exist; empty if it always does.
        ends_branch: Whether its output is what a branch adds to the residual stream, so that a
            layer with all of these at zero does nothing.
    """

    tensor: str
    dimensions: tuple[Dimension, ...]
    kind: Kind = Kind.LINEAR
    when: str = ""
    ends_branch: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture as a table.

    Attributes:
        model_type: The key in config.json.
        architecture: The class that transformers loads.
        published_as: Another class that published checkpoints name, for which transformers takes
            `architecture`.
        layer: The roles of one layer.
        outer: The roles outside the layers, the head excepted; the gain is the final norm's.
        head: The output head, absent when it is tied to the embeddings.
        class_defaults: The sizes that the config class has where config.json does not say.
        tied_default: `tie_word_embeddings` when config.json does not say.
        kv_heads_default: `num_key_value_heads` when config.json does not say; None means as many
            as there are query heads.
        head_dim_default: `head_dim` likewise; None means `hidden_size / num_attention_heads`.
        per_layer_lists: The config keys that hold one entry for each layer.
        derived_lists: What the model class derives for those keys when config.json lacks them.
        layer_counts: The config keys that must follow the number of layers.
        more_sizes: The sizes of axes that only this family has.
        centred_gains: Whether a norm multiplies by `1 + w` instead of `w`.
        embedding_scale: The factor on the embeddings that the class derives from the hidden size
            and the dtype of the weights; None if there is none.
        softmax_scale_key: The config key that fixes the scale of the attention logits; empty if
            it is `1 / sqrt(head_dim)`.
        compensated: The config keys that keep the function where the class rescales with depth or
            width: from the config before and the config after to the changes.
        heads_divide_hidden: Whether the config class wants `hidden_size` to be a multiple of
            `num_attention_heads`, also where head_dim is given.
        on_by_default: The switches of config.json that are on when it does not say.
        rope_default: The rope parameters that the class has when config.json names none, as far as
            they are no plain ones.
        refuses: Why the classes of the model cannot have a config whose common counts are sound;
            empty if they can.
        fixed_axes: The axes that cannot grow -> the reason.
        begins_with_bos: Whether the models were trained on sequences that begin with the
            beginning-of-text token, and compute badly without it.
    """

    model_type: str
    architecture: str
    layer: tuple[Role, ...]
    outer: tuple[Role, ...]
    head: Role
    class_defaults: Mapping[str, int] = field(default_factory=dict)
    published_as: str = ""
    tied_default: bool = False
    kv_heads_default: int | None = None
    head_dim_default: int | None = None
    per_layer_lists: tuple[str, ...] = ("layer_types",)
    derived_lists: Callable[[Config], Mapping[str, list[Any]]] | None = None
    layer_counts: tuple[str, ...] = ("num_hidden_layers",)
    more_sizes: Callable[[Config], Mapping[str, int]] | None = None
    centred_gains: bool = False
    embedding_scale: Callable[[int, str], float] | None = None
    softmax_scale_key: str = ""
    compensated: Callable[[Config, Config], Mapping[str, Any]] | None = None
    heads_divide_hidden: bool = False
    on_by_default: tuple[str, ...] = ()
    rope_default: Config = field(default_factory=dict)
    refuses: Callable[[Config], str] | None = None
    fixed_axes: Mapping[str, str] = field(default_factory=dict)
    begins_with_bos: bool = False

    @property
    def final_norm(self) -> Role:
        """The gain between the last layer and the head."""
        return next(role for role in self.outer if role.kind is Kind.GAIN)

    @property
    def embeddings(self) -> Role:
        """The embeddings of the vocabulary."""
        return next(role for role in self.outer if role.kind is Kind.EMBEDDING)

    def __repr__(self) -> str:
        return f"Family({self.model_type}: {self.architecture})"

    def is_tied(self, config: Config) -> bool:
        """Say whether config.json ties the output head to the embeddings."""
        return bool(config.get("tie_word_embeddings", self.tied_default))

    def objection(self, config: Config) -> str:
        """Say why transformers would refuse a config, of a base or grown; empty if it would not."""
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        if self.heads_divide_hidden and hidden % heads:
            return f"hidden_size {hidden} is no multiple of num_attention_heads {heads}"
        return self.refuses(config) if self.refuses else ""

    def sizes(self, config: Config) -> dict[str, int]:
        """Return the size of every named axis.

        `head_dim` is the width of a value head and `qk_dim` that of a query or key head.
        """
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
            "qk_dim": int(head_dim),
            **(self.more_sizes(config) if self.more_sizes else {}),
        }

    def roles(self, config: Config) -> dict[str, Role]:
        """Return the name and role of every tensor of a layer that this config has."""
        found = {}
        for role in self.layer:
            if role.when and not config.get(role.when, role.when in self.on_by_default):
                continue
            if "*" not in role.tensor:
                found[role.tensor] = role
                continue
            for expert in range(self.sizes(config)["experts"]):
                name = role.tensor.replace("*", str(expert))
                found[name] = replace(role, tensor=name)
        return found

    @property
    def has_experts(self) -> bool:
        """Whether a token passes some of several MLPs."""
        return any("*" in role.tensor for role in self.layer)

    def share(self, name: str, config: Config) -> float:
        """Return the share of the tokens that pass a tensor, by its name in the checkpoint."""
        if not self.has_experts or ".experts." not in name:
            return 1.0
        return float(config["num_experts_per_tok"] / self.sizes(config)["experts"])

    def shapes(self, config: Config, *, tied: bool) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every tensor that a checkpoint with this config has."""
        sizes = self.sizes(config)
        num_layers = int(config["num_hidden_layers"])
        layer = [(name, _shape(role, sizes)) for name, role in self.roles(config).items()]
        outer = self.outer if tied else (*self.outer, self.head)
        return {role.tensor: _shape(role, sizes) for role in outer} | {
            f"{layer_prefix(i)}{tensor}": shape
            for i in range(num_layers)
            for tensor, shape in layer
        }

    def per_layer(self, config: Config) -> dict[str, list[Any]]:
        """Return every per-layer list of the model, also those that the model class derives."""
        given = {
            key: list(config[key]) for key in self.per_layer_lists if config.get(key) is not None
        }
        if self.derived_lists is None or self.gives_lists(config):
            return given
        return {**self.derived_lists(config), **given}

    def gives_lists(self, config: Config) -> bool:
        """Say whether config.json holds every per-layer list, so that no rule has a say."""
        return all(config.get(key) is not None for key in self.per_layer_lists)


def windowed(config: Config, is_sliding: Callable[[int], object]) -> dict[str, list[Any]]:
    """Return `layer_types` of a config by whether the layer of a number has a sliding window."""
    return {
        "layer_types": [
            "sliding_attention" if is_sliding(i) else "full_attention"
            for i in range(config["num_hidden_layers"])
        ]
    }


def last_is_full(config: Config, pattern: int) -> dict[str, list[Any]]:
    """Return `layer_types`: in every `sliding_window_pattern` layers the last is not sliding."""
    period = config.get("sliding_window_pattern", pattern)
    return windowed(config, lambda i: (i + 1) % period)


def class_defaults(
    *, vocab: int, hidden: int, ffn: int, layers: int, heads: int
) -> Mapping[str, int]:
    """Return the sizes that a config class has, by the keys of config.json."""
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def is_count(value: object) -> bool:
    """Say whether something read from config.json is a positive integer of 31 bits."""
    return type(value) is int and 0 < value < 1 << 31


def layer_prefix(layer: int) -> str:
    """Return what the names of a layer's tensors start with."""
    return f"model.layers.{layer}."


def layer_of(name: str) -> tuple[int, str] | None:
    """Part the name of a layer's tensor in layer and role; None for a tensor outside the layers."""
    parts = name.split(".", 3)
    if len(parts) == 4 and parts[:2] == ["model", "layers"] and parts[2].isdecimal():
        return int(parts[2]), parts[3]
    return None


def _shape(role: Role, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        sum(prod(sizes[axis] for axis in axes) for axes in dimension)
        for dimension in role.dimensions
    )
