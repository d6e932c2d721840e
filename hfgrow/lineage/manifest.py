"""hfgrow.json: the chain from the root model to this one, every growth in it reproducible.

A manifest is a list of links, the root's first. A growth says what was grown (repository, commit,
sha256 of each weight file), by which steps (operator, arguments, layer map), how it was written,
what came out, and what was measured; a training says on what text, how, at what cost, and what it
did to the loss. A model that grows or trains again appends one link. A field is declared where its
dataclass has it, in the order in which it is written.
"""

import json
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar

from hfgrow import __version__
from hfgrow.checkpoint.layout import Layout
from hfgrow.errors import ModelError, printable
from hfgrow.lineage.card_metadata import checked_metadata
from hfgrow.lineage.kinds import (
    LATER,
    OBJECT,
    PHRASE,
    WORD,
    FieldKind,
    Record,
    is_word,
    items,
    one_of,
    record,
    settings,
    whole,
)
from hfgrow.lineage.records import (
    COMPARED,
    OFF_BEAT,
    STEP,
    WIDTHS,
    ZERO_ROWS,
    Benchmark,
    Compute,
    Elsewhere,
    Evaluated,
    Model,
    Positive,
    TrainingSource,
    WeightFile,
    recordable,
)
from hfgrow.plan.axes import AxisMap
from hfgrow.plan.depth import composed
from hfgrow.plan.elsewhere import OffBeat
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.mixture import experts_of
from hfgrow.plan.operators import MAX_STEPS
from hfgrow.plan.operators.operator import MAX_SEED, is_argument
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource
from hfgrow.plan.promise import Measured
from hfgrow.plan.tensors import CONFIG_DTYPES, Stored, predictor_of

# What the outcome of a training depends on.
PACKAGES = ("torch", "transformers", "accelerate")

__all__ = [
    "GROWTH",
    "SCHEMA",
    "TRAINING",
    "WIDTHS",
    "Compute",
    "Evaluated",
    "Link",
    "Manifest",
    "Model",
    "TrainingLink",
    "TrainingSource",
    "WeightFile",
    "changes_layers",
    "config_record",
]

SCHEMA = 1
# What a link of the chain is; a reader must not take one for the other, nor later kinds for these.
GROWTH, TRAINING = "growth", "training"
# A list of numbers spread over lines, as json.dumps writes a layer map.
_NUMBERS = re.compile(r"\[\n\s+\d+(?:,\s+\d+)*\s+\]")
_MAX_STAGES = _MAX_SOURCES = _MAX_EVALUATIONS = 1000
_MAX_SETTINGS = 100

_Phrase = Annotated[str, PHRASE]
_CARD = FieldKind(lambda value, where: checked_metadata(OBJECT.read(value, where)), dict)
_Versions = Annotated[Mapping[str, str], settings(is_word)]
_Card = Annotated[Mapping[str, Any], _CARD, LATER]
_Settings = Annotated[Mapping[str, bool | float | str], settings(is_argument, _MAX_SETTINGS), LATER]
_Evaluations = Annotated[tuple[Evaluated, ...], items(record(Evaluated), _MAX_EVALUATIONS, least=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Record):
    """One growth: from `base` by `steps` to `result`.

    Attributes:
        base: The model that was grown.
        steps: The operators, in order.
        dtype: The dtype asked for, or None if every tensor kept its own.
        max_shard_nbytes: The shard size asked for.
        result: The model that came out.
        versions: What it was done with.
        card: What the model card inherits of the base's: licence, languages.
        num_computed: How many tensors of the result are more than a tensor of the base, copied or
            converted.
        off_beat: What other programs have wrong about its special layers, if they have.
        zero_rows: The modules whose matrix has rows of zeros -> the 0-based layers, if there are.
        measured: Base against grown model, if that was measured.
        uncompared: Whether the sha256 of the result are of a time after growth, when nothing had
            compared the weights with the base; None where that is not so.
    """

    kind: ClassVar = GROWTH
    base: Model
    steps: Annotated[tuple[GrowthStep, ...], items(STEP, MAX_STEPS)]
    dtype: Annotated[str, one_of(CONFIG_DTYPES)] | None
    max_shard_nbytes: Positive
    result: Model
    versions: _Versions
    card: _Card = field(default_factory=dict)
    num_computed: Annotated[int, whole(), LATER] = 0
    off_beat: Annotated[OffBeat, OFF_BEAT] | None = None
    zero_rows: Annotated[Mapping[str, tuple[int, ...]], ZERO_ROWS] | None = None
    measured: Annotated[Measured, COMPARED] | None = None
    uncompared: bool | None = None

    @property
    def is_proved(self) -> bool:
        """Whether each weight file has a sha256 of its growth, or of a comparison since."""
        return not self.uncompared and all(file.sha256 for file in self.result.files.values())

    @property
    def preserves_function(self) -> bool:
        """Whether every step promises the same function as the base."""
        return all(step.preserves_function for step in self.steps)

    @property
    def layer_sources(self) -> tuple[LayerSource, ...]:
        """For every layer of the result, the 0-based layer of the base, and its mode."""
        current = tuple(LayerSource(i) for i in range(self.base.num_hidden_layers))
        for step in self.steps:
            current = tuple(composed(current, source) for source in step.layer_map)
        return current

    @property
    def layer_map(self) -> tuple[int, ...]:
        """For every layer of the result, the 0-based layer of the base it comes from."""
        return tuple(source.layer for source in self.layer_sources)

    @property
    def grown_axes(self) -> tuple[tuple[str, tuple[AxisMap, bool]], ...]:
        """The axes that grew in width, with their maps, and whether new units add nothing yet."""
        return tuple(
            (axis, (axis_map, step.preserves_function))
            for step in self.steps
            for axis, axis_map in (step.axes or {}).items()
        )

    @property
    def changes_layers(self) -> bool:
        """Whether the layers are others than those of the base, in their order."""
        return changes_layers(self.layer_sources, self.base.num_hidden_layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLink(Record):
    """One stage of training: from `base` to `result`, which has the same tensors with other values.

    Attributes:
        base: The model that was trained.
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
        settings: The other settings of optimizer, schedule and batch, by name.
        compute: What it cost.
        evaluations: Held-out texts, before and after.
        result: The model that came out.
        versions: What it was done with.
        card: What the model card inherits of the base's: licence, languages.
    """

    kind: ClassVar = TRAINING
    base: Model
    stage: Annotated[int, whole(most=_MAX_STAGES)]
    data: Annotated[tuple[TrainingSource, ...], items(record(TrainingSource), _MAX_SOURCES)]
    optimizer: _Phrase
    learning_rate: float
    schedule: _Phrase
    batch_tokens: Positive
    sequence_length: Positive
    precision: Annotated[str, WORD]
    seed: Annotated[int, whole(most=MAX_SEED)]
    trainable: _Phrase
    settings: _Settings = field(default_factory=dict)
    compute: Compute
    evaluations: _Evaluations = ()
    result: Model
    versions: _Versions
    card: _Card = field(default_factory=dict)

    @property
    def layer_map(self) -> tuple[int, ...]:
        """Every layer of the result is the base's, trained."""
        return tuple(range(self.base.num_hidden_layers))

    @property
    def changes_layers(self) -> bool:
        """Whether the layers are others than those of the base: never by training."""
        return False


@dataclass(frozen=True, slots=True)
class Manifest:
    """The chain of links, the root's first.

    Attributes:
        chain: The links.
        root_compute: What the root had cost before, if somebody declares it.
        benchmarks: What was measured of the last model of the chain.
        elsewhere: The trainings by other programs, in order.
    """

    chain: tuple[Link | TrainingLink, ...]
    root_compute: Compute | None = None
    benchmarks: tuple[Benchmark, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()

    def __repr__(self) -> str:
        names = [link.base.name for link in self.chain] + [self.link.result.name]
        return f"Manifest({' -> '.join(names)})"

    @property
    def root(self) -> Model:
        """The model that the first link starts from."""
        return self.chain[0].base

    @property
    def link(self) -> Link | TrainingLink:
        """The last link."""
        return self.chain[-1]

    @property
    def trained_since(self) -> tuple[Elsewhere, ...]:
        """The trainings by other programs since the last link."""
        return tuple(one for one in self.elsewhere if one.after == len(self.chain))

    @property
    def files(self) -> Mapping[str, WeightFile]:
        """The weight files of the model as they are now."""
        return self.trained_since[-1].files if self.trained_since else self.link.result.files

    @property
    def is_unproved(self) -> bool:
        """Whether the weights are to be those of a growth, and no record stands behind that."""
        return isinstance(self.link, Link) and not self.trained_since and not self.link.is_proved

    @property
    def growth(self) -> Link:
        """The last link, where only a growth will do.

        Raises:
            ModelError: It is a training.
        """
        if isinstance(self.link, TrainingLink):
            raise ModelError(
                f"{printable(self.link.result.name)} was trained after growth, and trained weights "
                "cannot be derived from its base",
                hint="hfgrow verify FOLDER compares them with what its training recorded",
            )
        return self.link

    @property
    def last_growth(self) -> Link | None:
        """The last growth of the chain, whatever came after it."""
        return next((link for link in reversed(self.chain) if isinstance(link, Link)), None)

    @property
    def is_from_scratch(self) -> bool:
        """Whether the root were random weights, which nobody had trained."""
        return self.root_compute is not None and not self.root_compute.tokens

    @property
    def trainings(self) -> tuple[TrainingLink, ...]:
        """The trainings of the chain."""
        return tuple(link for link in self.chain if isinstance(link, TrainingLink))

    def to_json(self) -> str:
        """Return the text of hfgrow.json."""
        content: dict[str, object] = {"schema": SCHEMA}
        if self.root_compute is not None:
            content["root_compute"] = self.root_compute.to_json()
        content["chain"] = [{"kind": link.kind, **link.to_json()} for link in self.chain]
        if self.elsewhere:
            content["elsewhere"] = [one.to_json() for one in self.elsewhere]
        if self.benchmarks:
            content["benchmarks"] = [found.to_json() for found in self.benchmarks]
        text = json.dumps(content, indent=2, ensure_ascii=False)
        return _NUMBERS.sub(lambda match: " ".join(match[0].split()), text) + "\n"

    def with_measured(self, measured: Measured | None) -> "Manifest":
        """Return the manifest with a measurement in its last link, a growth."""
        return self._ending_in(replace(self.growth, measured=measured))

    def with_result_hashes(self, sha256: Mapping[str, str]) -> "Manifest":
        """Return the manifest with hashes of weight files of the model that are known now."""
        return self.with_result_files(_hashed(self.files, sha256))

    def with_result_files(self, files: Mapping[str, WeightFile]) -> "Manifest":
        """Return the manifest with other records of the weight files of the model."""
        if self.trained_since:
            last = replace(self.elsewhere[-1], files=files)
            return replace(self, elsewhere=(*self.elsewhere[:-1], last))
        return self._ending_in(replace(self.link, result=replace(self.link.result, files=files)))

    def with_compared(self, *, compared: bool) -> "Manifest":
        """Return the manifest with whether its last link, a growth, was compared with its base."""
        return self._ending_in(replace(self.growth, uncompared=None if compared else True))

    def with_base_hashes(self, sha256: Mapping[str, str]) -> "Manifest":
        """Return the manifest with hashes of the last link's base that are known now."""
        base = replace(self.link.base, files=_hashed(self.link.base.files, sha256))
        return self._ending_in(replace(self.link, base=base))

    def trained_elsewhere(self, note: str, files: Mapping[str, WeightFile]) -> "Manifest":
        """Return the manifest with one more training by another program, without benchmarks."""
        done = Elsewhere(len(self.chain), note, files)
        return replace(self, elsewhere=(*self.elsewhere, done), benchmarks=())

    def followed_by(self, link: Link | TrainingLink) -> "Manifest":
        """Return the manifest with one more link, without the benchmarks of the model before."""
        return replace(self, chain=(*self.chain, link), benchmarks=())

    def with_benchmarks(self, found: Sequence[Benchmark]) -> "Manifest":
        """Return the manifest with what may be recorded of results, those of the tasks replaced."""
        taken = recordable(found, self.benchmarks)
        tasks = {benchmark.task for benchmark in taken}
        kept = (benchmark for benchmark in self.benchmarks if benchmark.task not in tasks)
        return replace(self, benchmarks=(*kept, *taken))

    def _ending_in(self, link: Link | TrainingLink) -> "Manifest":
        return replace(self, chain=(*self.chain[:-1], link))

    @property
    def root_layer_map(self) -> tuple[int, ...]:
        """For every layer, the 0-based layer of the root it comes from; 0 where that has none."""
        current = tuple(range(self.root.num_hidden_layers))
        for link in self.chain:
            current = tuple(current[i] if current else 0 for i in link.layer_map)
        return current


def _hashed(files: Mapping[str, WeightFile], sha256: Mapping[str, str]) -> dict[str, WeightFile]:
    return {
        name: replace(file, sha256=sha256.get(name, file.sha256)) for name, file in files.items()
    }


def config_record(link: Link | TrainingLink) -> dict[str, object]:
    """Return the small record that goes into config.json."""
    record: dict[str, object] = {
        "schema": SCHEMA,
        "base": link.base.repo_id or link.base.name,
    }
    if isinstance(link, Link):
        record["operators"] = [step.operator for step in link.steps]
    else:
        record["trained_tokens"] = link.compute.tokens
    if link.base.revision:
        record["base_revision"] = link.base.revision
    return record


def changes_layers(sources: Sequence[LayerSource], num_base_layers: int) -> bool:
    """Say whether a layer map is another than that of the base itself."""
    return list(sources) != [LayerSource(i) for i in range(num_base_layers)]


def model_record(
    plan: GrowthPlan,
    name: str,
    *,
    files: Mapping[str, WeightFile],
    repo_id: str | None = None,
    revision: str | None = None,
) -> Model:
    """Return the record of the model that a plan describes."""
    return Model(
        name=name,
        repo_id=repo_id,
        revision=revision,
        num_hidden_layers=plan.num_hidden_layers,
        num_parameters=plan.num_parameters,
        num_non_embedding_parameters=non_embedding_parameters(plan),
        files=files,
        layer_types=layer_types_of(plan),
        **widths_of(plan),
        **experts_of(plan),
    )


def layer_types_of(plan: GrowthPlan) -> tuple[str, ...] | None:
    """Return the kind of every layer, as config.json or its class names it.

    Of a family that is derived and has no names for them, letters; None if all are of one kind, or
    a name is no word.
    """
    if plan.derived is None:
        return _of_several(FAMILIES[plan.family].per_layer(plan.config).get("layer_types"), plan)
    named = plan.derived.settings_of(plan.config).get("layer_types")
    return _of_several(named, plan) or _of_several([*plan.derived.kinds], plan)


def _of_several(kinds: object, plan: GrowthPlan) -> tuple[str, ...] | None:
    if not isinstance(kinds, list) or len(kinds) != plan.num_hidden_layers:
        return None
    return tuple(kinds) if all(map(is_word, kinds)) and len(set(kinds)) > 1 else None


def widths_of(plan: GrowthPlan) -> dict[str, int]:
    """Return the sizes of the axes of width, by config key."""
    if plan.derived is not None:
        known = {key: plan.derived.sizes.get(axis) for key, axis in WIDTHS.items()}
        return {key: size for key, size in known.items() if size is not None}
    sizes = FAMILIES[plan.family].sizes(plan.config)
    return {key: sizes[axis] for key, axis in WIDTHS.items()}


def non_embedding_parameters(plan: GrowthPlan) -> int:
    """Return the parameters outside the embeddings and the output head."""
    outside = plan.derived.embeddings if plan.derived else _EMBEDDINGS
    return plan.num_parameters - sum(
        plan.tensors[name].num_elements for name in outside if name in plan.tensors
    )


_EMBEDDINGS = frozenset({"model.embed_tokens.weight", "lm_head.weight"})


def num_computed(plan: GrowthPlan) -> int:
    """Return how many tensors are more than a tensor of the base, copied or converted."""
    return sum(not isinstance(tensor.recipe, Stored) for tensor in plan.tensors.values())


def layout_files(layout: Layout) -> dict[str, WeightFile]:
    """Return the records of the files of a layout, before anyone has read them."""
    return {shard.name: WeightFile(shard.nbytes) for shard in layout.shards}


def versions_of_plan(plan: GrowthPlan) -> dict[str, str]:
    """Return the versions that a growth depends on; those of numpy and torch if they compute."""
    numpy = ["numpy"] if plan.computes else []
    torch = ["torch"] if any(predictor_of(t.recipe) for t in plan.tensors.values()) else []
    return versions_of(*torch, *numpy, *(["transformers"] if plan.derived else []))


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of hfgrow, Python, and those of some packages that are installed."""
    found = {"hfgrow": __version__, "python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
