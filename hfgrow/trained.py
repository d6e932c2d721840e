"""What hfgrow.json records of a stage of training: the text, what it cost, what it did."""

import re
from dataclasses import asdict, dataclass
from typing import Literal

from hfgrow.fields import as_label, as_phrase

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
