"""The links of a chain: from one model to the next, by growth or by training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfgrow.plan.plan import GrowthStep, LayerSource
from hfgrow.plan.promise import Measured
from hfgrow.trained import Compute, Evaluated, TrainingSource

# The fields of a model that say how wide it is -> the axis whose size they hold.
WIDTHS: Mapping[str, str] = {
    "hidden_size": "hidden",
    "intermediate_size": "ffn",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weight file: its size, and its sha256 once somebody has read it."""

    nbytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the chain.

    Attributes:
        name: Its short name: an alias, the last part of its repository, or its folder's name.
        repo_id: Its repository on the Hub, if it came from there.
        revision: The commit it was taken at.
        num_hidden_layers: Its depth.
        num_parameters: All its parameters.
        num_non_embedding_parameters: Those outside embeddings and head.
        files: Its weight files.
        hidden_size: The width of its residual stream; this and the other widths are None in a
            record of a time when nothing grew in width.
        intermediate_size: The number of neurons of an MLP.
        num_attention_heads: The number of query heads.
        num_key_value_heads: The number of key-value heads.
        head_dim: The width of a value head.
    """

    name: str
    num_hidden_layers: int
    num_parameters: int
    num_non_embedding_parameters: int
    files: Mapping[str, WeightFile]
    repo_id: str | None = None
    revision: str | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None

    @property
    def widths(self) -> dict[str, int | None]:
        """The sizes of the axes of width, by config key."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
        }


@dataclass(frozen=True, slots=True)
class Link:
    """One growth: from `base` by `steps` to `result`.

    Attributes:
        base: The model that was grown.
        steps: The operators, in order.
        dtype: The dtype asked for, or None if every tensor kept its own.
        max_shard_nbytes: The shard size asked for.
        result: The model that came out.
        versions: What it was done with.
        measured: Base against grown model, if that was measured.
        card: What the model card inherits of the base's: licence, languages.
        num_computed: How many tensors of the result are more than a tensor of the base, copied or
            converted.
    """

    base: Model
    steps: tuple[GrowthStep, ...]
    dtype: str | None
    max_shard_nbytes: int
    result: Model
    versions: Mapping[str, str]
    measured: Measured | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    num_computed: int = 0

    @property
    def preserves_function(self) -> bool:
        """Whether every step promises the same function as the base."""
        return all(step.preserves_function for step in self.steps)

    @property
    def layer_sources(self) -> tuple[LayerSource, ...]:
        """For every layer of the result, the 0-based layer of the base, and its mode."""
        current = tuple(LayerSource(i) for i in range(self.base.num_hidden_layers))
        for step in self.steps:
            current = tuple(
                current[source.layer]
                if source.mode == "copy"
                else LayerSource(current[source.layer].layer, source.mode)
                for source in step.layer_map
            )
        return current

    @property
    def layer_map(self) -> tuple[int, ...]:
        """For every layer of the result, the 0-based layer of the base it comes from."""
        return tuple(source.layer for source in self.layer_sources)

    @property
    def changes_layers(self) -> bool:
        """Whether the layers are others than those of the base, in their order."""
        return changes_layers(self.layer_sources, self.base.num_hidden_layers)


@dataclass(frozen=True, slots=True)
class TrainingLink:
    """One stage of training: from `base` to `result`, which has the same tensors with other values.

    Attributes:
        base: The model that was trained.
        result: The model that came out.
        versions: What it was done with.
        stage: The 0-based stage of the recipe.
        data: What it was trained on.
        optimizer: Its name, with what matters of its constants.
        learning_rate: The peak.
        schedule: How the learning rate went.
        batch_tokens: Tokens of an optimizer step, over all processes.
        sequence_length: Tokens of a sequence.
        precision: What was computed in.
        seed: Of the order of the data and of what is random.
        trainable: What learnt: `all`, `new`, or what was chosen, in short words.
        compute: What it cost.
        evaluations: Held-out texts, before and after.
        card: What the model card inherits of the base's: licence, languages.
        settings: The other settings of optimizer, schedule and batch, by name.
    """

    base: Model
    result: Model
    versions: Mapping[str, str]
    stage: int
    data: tuple[TrainingSource, ...]
    optimizer: str
    learning_rate: float
    schedule: str
    batch_tokens: int
    sequence_length: int
    precision: str
    seed: int
    trainable: str
    compute: Compute
    evaluations: tuple[Evaluated, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, bool | float | str] = field(default_factory=dict)

    @property
    def layer_map(self) -> tuple[int, ...]:
        """Every layer of the result is the base's, trained."""
        return tuple(range(self.base.num_hidden_layers))

    @property
    def changes_layers(self) -> bool:
        """Whether the layers are others than those of the base: never by training."""
        return False


def changes_layers(sources: Sequence[LayerSource], num_base_layers: int) -> bool:
    """Say whether a layer map is another than that of the base itself."""
    return list(sources) != [LayerSource(i) for i in range(num_base_layers)]
