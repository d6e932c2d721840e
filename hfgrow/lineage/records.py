"""What hfgrow.json records of models, steps, texts, costs, losses and benchmarks.

Each field is declared here, once: `kinds` reads and writes it as its annotation says.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from hfgrow.checkpoint.files import COMMIT, REPO_NAME
from hfgrow.checkpoint.strict import is_int
from hfgrow.lineage.kinds import (
    LABEL,
    MAX_REAL,
    OBJECT,
    PHRASE,
    SHA256,
    WORD,
    FieldKind,
    Record,
    damaged,
    fitting,
    is_word,
    items,
    one_of,
    real,
    record,
    settings,
    text,
    whole,
)
from hfgrow.plan.axes import FRESH, MIXED, MOST_SPANS, AxisMap, Span
from hfgrow.plan.depth import MAX_LAYERS
from hfgrow.plan.elsewhere import PERIODS, OffBeat
from hfgrow.plan.operators.operator import is_argument
from hfgrow.plan.plan import GrowthStep, LayerSource
from hfgrow.plan.promise import TOLERANCES, Measured

MEASURED = "measured"
# What a recipe calls the text that every Python carries; no dataset of the Hub.
DEMO_TEXT = "demo"
_SPLIT = re.compile(r"[\w.-]{1,100}(\[(\d{1,3}%)?:(\d{1,3}%)?\])?", re.ASCII)
_NAME = re.compile(r"[\w.,:@-]{1,100}", re.ASCII)
_MAX_DEVICES = 1 << 24
_REPO = re.compile(r"\w[\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
_WEIGHTS = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)

Positive = Annotated[int, whole(1)]
_Label = Annotated[str, LABEL]
_Dataset = Annotated[str, text(REPO_NAME)]
_Name = Annotated[str, text(_NAME)]


@dataclass(frozen=True, slots=True)
class WeightFile(Record):
    """A weight file: its size, and its sha256 once somebody has read it."""

    nbytes: int
    sha256: Annotated[str, SHA256] | None = None


def _weight_files() -> FieldKind:
    file = record(WeightFile)

    def read(value: Any, where: str) -> dict[str, WeightFile]:
        content = OBJECT.read(value, where)
        if not content:
            raise damaged(where, "there are none")
        for name in content:
            if not _WEIGHTS.fullmatch(name):
                raise damaged("files", name)
        return {name: file.read(found, name) for name, found in content.items()}

    return FieldKind(
        read,
        lambda files: {name: file.write(found) for name, found in files.items()},
        names_owner=True,
    )


_PATTERN = re.compile(r"[\d:*\[\]-]{1,100}")
OFF_BEAT = record(OffBeat, model_type=one_of(PERIODS), pattern=text(_PATTERN))
_MODULE = re.compile(r"\w[\w.]{0,100}", re.ASCII)
_MAX_MODULES = 1000


def _zero_rows() -> FieldKind:
    layers = items(whole(0, MAX_LAYERS - 1), MAX_LAYERS)

    def read(value: Any, where: str) -> dict[str, tuple[int, ...]]:
        content = OBJECT.read(value, where)
        if len(content) > _MAX_MODULES or not all(map(_MODULE.fullmatch, content)):
            raise damaged(where, list(content))
        return {module: layers.read(found, where) for module, found in content.items()}

    return FieldKind(read, lambda found: {key: list(value) for key, value in found.items()})


ZERO_ROWS = _zero_rows()


def _words() -> FieldKind:
    """Return the kind of a list of words, which hfgrow.json has in one line."""

    def read(value: Any, where: str) -> tuple[str, ...]:
        words = tuple(value.split(" ", MAX_LAYERS)) if isinstance(value, str) else ()
        if not words or not all(map(is_word, words)):
            raise damaged(where, value)
        return words

    return FieldKind(read, " ".join)


# The fields of a model that say how wide it is -> the axis whose size they hold.
WIDTHS: Mapping[str, str] = {
    "hidden_size": "hidden",
    "intermediate_size": "ffn",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
}


@dataclass(frozen=True, slots=True)
class Model(Record):
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
        num_experts: The experts of a layer; None for a dense model, as are the next two.
        num_experts_per_tok: How many of them a token passes.
        num_active_parameters: The parameters that a token passes, embeddings and head included.
        layer_types: The kind of every layer, as config.json names it; None if all are of one.
    """

    name: Annotated[str, fitting(lambda v: isinstance(v, str) and 0 < len(v) < 256)]
    num_hidden_layers: Annotated[int, whole(0, MAX_LAYERS)]
    num_parameters: int
    num_non_embedding_parameters: int
    files: Annotated[Mapping[str, WeightFile], _weight_files()]
    repo_id: Annotated[str, text(_REPO)] | None = None
    revision: Annotated[str, text(COMMIT)] | None = None
    hidden_size: Positive | None = None
    intermediate_size: Positive | None = None
    num_attention_heads: Positive | None = None
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    num_experts: Positive | None = None
    num_experts_per_tok: Positive | None = None
    num_active_parameters: Positive | None = None
    layer_types: Annotated[tuple[str, ...], _words()] | None = None

    @property
    def widths(self) -> dict[str, int | None]:
        """The sizes of the axes of width, by config key."""
        return {key: getattr(self, key) for key in WIDTHS}

    @property
    def num_passed_parameters(self) -> int:
        """The parameters that a token passes: of a dense model all."""
        return self.num_active_parameters or self.num_parameters


@dataclass(frozen=True, slots=True)
class TrainingSource(Record):
    """A text that was trained on.

    Attributes:
        label: Its name for people, without the folders above it.
        kind: `dataset` of the Hub, or `local` text.
        split: The split, or the part of it: `train[:99%]`.
        tokens: How many of its tokens were trained on, repeated ones counted again.
        weight: Its share of the tokens, relative to the other texts'.
        fingerprint: The sha256 that stands for text, split and tokenizer.
        dataset: The repository of the dataset; None for local text, and for the text that hfgrow
            finds without the Hub.
    """

    label: _Label
    kind: Literal["dataset", "local"]
    split: Annotated[str, text(_SPLIT)]
    tokens: int
    weight: float
    fingerprint: Annotated[str, SHA256]
    dataset: _Dataset | None = None


@dataclass(frozen=True, slots=True)
class Compute(Record):
    """What training cost.

    Attributes:
        num_parameters: All parameters of the model that was trained.
        num_non_embedding_parameters: Those outside embeddings and head.
        tokens: The tokens trained on.
        flops: The headline, 6 FLOPs for each active parameter and token.
        exact_flops: Those of matrices and attention, forward and backward; None is unknown, here
            and below.
        seconds: How long it took.
        devices: On how many devices.
        device: What they are.
        source: `measured` by the run itself, or `declared` by whoever knows.
        num_active_parameters: Those that a token passes; None where it is all of them, and in
            older records of mixtures of experts, whose flops are of all.
    """

    num_parameters: Positive
    num_non_embedding_parameters: int
    tokens: int
    flops: float
    exact_flops: float | None = None
    seconds: float | None = None
    devices: Annotated[int, whole(1, _MAX_DEVICES)] | None = None
    device: Annotated[str, PHRASE] | None = None
    source: Literal["measured", "declared"] = "measured"
    num_active_parameters: Positive | None = None


@dataclass(frozen=True, slots=True)
class Evaluated(Record):
    """What training did to the loss on a held-out text.

    Attributes:
        label: The text's name.
        num_tokens: How many tokens were predicted.
        before: Nats per token before this training: just after growth, if the model had just grown.
        after: Nats per token after it.
        bits_per_byte_before: The same in bits a byte of UTF-8, which compare across tokenizers.
        bits_per_byte_after: And after it.
        before_growth: Nats per token just before the growth that preceded this training.
        recovered_tokens: Tokens of this training until the loss was back at `before_growth`; None
            if it did not get there, or nobody looked.
    """

    label: _Label
    num_tokens: Positive
    before: float
    after: float
    bits_per_byte_before: float
    bits_per_byte_after: float
    before_growth: float | None = None
    recovered_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Elsewhere(Record):
    """A training by another program: what its user says of it, and the weights that came out.

    Attributes:
        after: How many links of the chain come before it.
        note: What was done, in the words of whoever did it.
        files: The weight files since.
    """

    after: Positive
    note: Annotated[str, LABEL]
    files: Annotated[Mapping[str, WeightFile], _weight_files()]


@dataclass(frozen=True, slots=True)
class Benchmark(Record):
    """One metric of one task, of these weights: a model that grows or trains from them has none.

    Attributes:
        task: Its name in the harness: `arc_challenge`.
        metric: The metric's: `acc_norm`, with the filter behind a comma if it has one.
        value: The result.
        num_samples: How many examples it is the mean of.
        num_fewshot: Examples in front of each.
        harness: What measured it, with its version: `lm-eval 0.4.13`.
        stderr: The standard error of the value; None is unknown, here and below.
        num_all_samples: How many examples the split has, if not all were taken.
        version: Of the task.
        dataset: The repository of its dataset on the Hub.
        config: The configuration of that.
        split: The split.
    """

    task: _Name
    metric: _Name
    value: Annotated[float, real(-MAX_REAL)]
    num_samples: Positive
    num_fewshot: int
    harness: Annotated[str, PHRASE]
    stderr: float | None = None
    num_all_samples: Positive | None = None
    version: Annotated[str, WORD] | None = None
    dataset: _Dataset | None = None
    config: _Name | None = None
    split: _Name | None = None

    @property
    def is_limited(self) -> bool:
        """Whether only some of the examples were taken: a look, not a claim."""
        return self.num_all_samples is not None


def _layer_source(value: Any, where: str) -> LayerSource:
    pair = value if isinstance(value, list) and len(value) == 2 else (value, "copy")
    layer, mode = pair
    if not is_int(layer) or not 0 <= layer < MAX_LAYERS or not is_word(mode):
        raise damaged(where, value)
    return LayerSource(layer, mode)


# A copied layer is written as its number, others as [layer, mode].
_LAYER = FieldKind(
    _layer_source,
    lambda source: source.layer if source.mode == "copy" else [source.layer, source.mode],
)
# Units of an axis by their sources in the base, or how many have none, or none that is told.
_UNITS = re.compile(r"(new|mixed) (\d{1,7})|(\d{1,7})(?:-(\d{1,7}))?", re.ASCII)
_STARTS = {"new": FRESH, "mixed": MIXED}


def _axis_map(value: Any, where: str) -> AxisMap:
    base, arrow, units = value.partition(" -> ") if isinstance(value, str) else ("", "", "")
    found = [_UNITS.fullmatch(part) for part in units.split(", ", MOST_SPANS)]
    if not arrow or not re.fullmatch(r"[1-9]\d{0,6}", base, re.ASCII) or not all(found):
        raise damaged(where, value)
    spans = []
    for word, count, first, last in (one.groups() for one in found if one):
        start = _STARTS[word] if word else int(first)
        span = Span(start, int(count) if word else int(last or first) - start + 1)
        if span.length < 1 or (span.start >= 0 and span.start + span.length > int(base)):
            raise damaged(where, value)
        spans.append(span)
    return AxisMap(int(base), tuple(spans))


def _axis_text(axis_map: AxisMap) -> str:
    """Return an axis as hfgrow.json has it: `64 -> 0-63, 0-31` or `64 -> 0-63, new 64`."""
    words = {start: word for word, start in _STARTS.items()}
    units = (
        f"{words[span.start]} {span.length}"
        if span.start in words
        else str(span.start)
        if span.length == 1
        else f"{span.start}-{span.start + span.length - 1}"
        for span in axis_map.spans
    )
    return f"{axis_map.base} -> {', '.join(units)}"


_AXIS = FieldKind(_axis_map, _axis_text)
_AXIS_TEXTS = settings(lambda value: isinstance(value, str), 16)
_AXES = FieldKind(
    lambda value, where: {
        axis: _AXIS.read(found, axis) for axis, found in _AXIS_TEXTS.read(value, where).items()
    },
    lambda axes: {axis: _AXIS.write(found) for axis, found in axes.items()},
)
# What the plan knows of, and declares without hfgrow.json in mind.
STEP = record(
    GrowthStep,
    operator=WORD,
    arguments=settings(is_argument),
    layer_map=items(_LAYER, MAX_LAYERS),
    axes=_AXES,
)
COMPARED = record(
    Measured,
    text=fitting(lambda v: isinstance(v, str) and len(v) < 80),
    dtype=one_of(TOLERANCES),
    argmax_agreement=real(most=1),
)


def recordable(found: Sequence[Benchmark], earlier: Sequence[Benchmark]) -> tuple[Benchmark, ...]:
    """Return the results that may be recorded beside or instead of earlier ones.

    Those of some examples do not replace those of all.
    """
    complete = {benchmark.task for benchmark in earlier if not benchmark.is_limited}
    return tuple(one for one in found if not one.is_limited or one.task not in complete)


def is_benchmark_name(value: object) -> bool:
    """Say whether a name of a task, metric, configuration or split can be recorded."""
    return isinstance(value, str) and bool(_NAME.fullmatch(value))
