"""hfgrow.json: the chain from the root model to this one, every growth reproducible.

A manifest is a list of links, the root's first. A link says what was grown (repository, commit,
sha256 of each weight file), by which steps (operator, arguments, layer map), how it was written,
what came out, and what was measured. A grown model that grows again appends one link.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hfgrow.measured import Measured
from hfgrow.plan import GrowthStep, LayerSource

SCHEMA = 1
# What a link of the chain is; other kinds will follow, and a reader must not take them for this.
GROWTH = "growth"
# The fields of a model that say how wide it is -> the axis whose size they hold.
WIDTHS: Mapping[str, str] = {
    "hidden_size": "hidden",
    "intermediate_size": "ffn",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
}
# A list of numbers spread over lines, as json.dumps writes a layer map.
_NUMBERS = re.compile(r"\[\n\s+\d+(?:,\s+\d+)*\s+\]")


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
class Manifest:
    """The chain of links, the root's first."""

    chain: tuple[Link, ...]

    @property
    def root(self) -> Model:
        """The model that the first growth started from."""
        return self.chain[0].base

    @property
    def link(self) -> Link:
        """The last growth."""
        return self.chain[-1]

    def to_json(self) -> str:
        """Return the text of hfgrow.json."""
        content = {"schema": SCHEMA, "chain": [_link_json(link) for link in self.chain]}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        return _NUMBERS.sub(lambda match: " ".join(match[0].split()), text) + "\n"

    def with_measured(self, measured: Measured | None) -> "Manifest":
        """Return the manifest with a measurement in its last link."""
        return Manifest((*self.chain[:-1], replace(self.link, measured=measured)))

    def with_result_files(self, files: Mapping[str, WeightFile]) -> "Manifest":
        """Return the manifest with other records of the result's weight files."""
        result = replace(self.link.result, files=files)
        return Manifest((*self.chain[:-1], replace(self.link, result=result)))

    @property
    def root_layer_map(self) -> tuple[int, ...]:
        """For every layer, the 0-based layer of the root it comes from."""
        current = tuple(range(self.root.num_hidden_layers))
        for link in self.chain:
            current = tuple(current[i] for i in link.layer_map)
        return current


def changes_layers(sources: Sequence[LayerSource], num_base_layers: int) -> bool:
    """Say whether a layer map is another than that of the base itself."""
    return list(sources) != [LayerSource(i) for i in range(num_base_layers)]


def config_record(link: Link) -> dict[str, object]:
    """Return the small record that goes into config.json."""
    record: dict[str, object] = {
        "schema": SCHEMA,
        "base": link.base.repo_id or link.base.name,
        "operators": [step.operator for step in link.steps],
    }
    if link.base.revision:
        record["base_revision"] = link.base.revision
    return record


def _link_json(link: Link) -> dict[str, object]:
    content: dict[str, object] = {
        "kind": GROWTH,
        "base": _model_json(link.base),
        "steps": [_step_json(step) for step in link.steps],
        "dtype": link.dtype,
        "max_shard_nbytes": link.max_shard_nbytes,
        "result": _model_json(link.result),
        "versions": dict(link.versions),
        "card": dict(link.card),
        "num_computed": link.num_computed,
    }
    if link.measured is not None:
        content["measured"] = link.measured.to_json()
    return content


def _model_json(model: Model) -> dict[str, object]:
    return {
        **{key: value for key, value in asdict(model).items() if value is not None},
        "files": {
            name: {"nbytes": file.nbytes} | ({"sha256": file.sha256} if file.sha256 else {})
            for name, file in model.files.items()
        },
    }


def _step_json(step: GrowthStep) -> dict[str, object]:
    """Return a step; a copied layer is written as its number, others as [layer, mode]."""
    return {
        "operator": step.operator,
        "arguments": dict(step.arguments),
        "layer_map": [
            source.layer if source.mode == "copy" else [source.layer, source.mode]
            for source in step.layer_map
        ],
        "preserves_function": step.preserves_function,
    }
