"""What hfgrow.json records of a stage of training: the text, what it cost, what it did.

Results of benchmarks, as hfgrow.json and the card of a model record them.

They are of the weights that they were measured on: a model that grows or trains from these starts
without any.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hfgrow.lineage.fields import (
    as_label,
    as_phrase,
    checked,
    is_phrase,
    is_word,
    number,
    object_of,
    optional,
    real,
    shaped,
)

MEASURED, DECLARED = "measured", "declared"
# What a recipe calls the text that every Python carries; no dataset of the Hub.
DEMO_TEXT = "demo"
# The repository of a dataset; the oldest ones have no owner in their name.
DATASET = re.compile(r"(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TrainingSource:
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

    label: str
    kind: Literal["dataset", "local"]
    split: str
    tokens: int
    weight: float
    fingerprint: str
    dataset: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        return _known({**asdict(self), "label": as_label(self.label)})


@dataclass(frozen=True, slots=True)
class Compute:
    """What training cost.

    Attributes:
        num_parameters: All parameters of the model that was trained.
        num_non_embedding_parameters: Those outside embeddings and head.
        tokens: The tokens trained on.
        flops: The headline, 6 FLOPs for each parameter and token.
        exact_flops: Those of matrices and attention, forward and backward; None is unknown, here
            and below.
        seconds: How long it took.
        devices: On how many devices.
        device: What they are.
        source: `measured` by the run itself, or `declared` by whoever knows.
    """

    num_parameters: int
    num_non_embedding_parameters: int
    tokens: int
    flops: float
    exact_flops: float | None = None
    seconds: float | None = None
    devices: int | None = None
    device: str | None = None
    source: Literal["measured", "declared"] = "measured"

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        device = None if self.device is None else as_phrase(self.device)
        return _known({**asdict(self), "device": device})


@dataclass(frozen=True, slots=True)
class Evaluated:
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

    label: str
    num_tokens: int
    before: float
    after: float
    bits_per_byte_before: float
    bits_per_byte_after: float
    before_growth: float | None = None
    recovered_tokens: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        return _known({**asdict(self), "label": as_label(self.label)})


def _known(fields: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not None}


_NAME = re.compile(r"[\w.,:@-]{1,100}", re.ASCII)
_MOST = 1e39


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One metric of one task.

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

    task: str
    metric: str
    value: float
    num_samples: int
    num_fewshot: int
    harness: str
    stderr: float | None = None
    num_all_samples: int | None = None
    version: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None

    @property
    def is_limited(self) -> bool:
        """Whether only some of the examples were taken: a look, not a claim."""
        return self.num_all_samples is not None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def benchmark_of(value: Any) -> Benchmark:
    """Read a result out of hfgrow.json, which may come from a stranger.

    Raises:
        ModelError: A field is missing, of the wrong kind, or out of bounds.
    """
    content = object_of(value, "benchmarks")
    return Benchmark(
        task=shaped(content, "task", _NAME),
        metric=shaped(content, "metric", _NAME),
        value=float(checked(content, "value", _is_value)),
        num_samples=number(content, "num_samples", least=1),
        num_fewshot=number(content, "num_fewshot"),
        harness=str(checked(content, "harness", is_phrase)),
        stderr=None if content.get("stderr") is None else real(content, "stderr"),
        num_all_samples=_optional_number(content, "num_all_samples"),
        version=_optional_word(content, "version"),
        dataset=optional(content, "dataset", DATASET),
        config=optional(content, "config", _NAME),
        split=optional(content, "split", _NAME),
    )


def recordable(found: Sequence[Benchmark], earlier: Sequence[Benchmark]) -> tuple[Benchmark, ...]:
    """Return the results that may be recorded beside or instead of earlier ones.

    Those of some examples do not replace those of all.
    """
    whole = {benchmark.task for benchmark in earlier if not benchmark.is_limited}
    return tuple(one for one in found if not one.is_limited or one.task not in whole)


def is_benchmark_name(value: object) -> bool:
    """Say whether a name of a task, metric, configuration or split can be recorded."""
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def _is_value(value: object) -> bool:
    """Say whether a value is a finite number; a correlation may be below 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and isinstance(value, int | float) and abs(value) <= _MOST


def _optional_number(content: Mapping[str, Any], key: str) -> int | None:
    return None if content.get(key) is None else number(content, key, least=1)


def _optional_word(content: Mapping[str, Any], key: str) -> str | None:
    return None if content.get(key) is None else str(checked(content, key, is_word))
