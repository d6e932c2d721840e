"""What the probes of a comparison have in common: their batches, and their text, tokenised once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.console import Progress
from hfgrow.data.corpus import corpus_of, open_sources
from hfgrow.data.order import BlockOrder, check_sequence_length
from hfgrow.data.sources import DEMO, VALIDATION, TextSource
from hfgrow.data.tokenizer import open_tokenizer
from hfgrow.data.views import TokenView
from hfgrow.errors import ModelError, TrainingError, UsageError
from hfgrow.hub.client import HubClient

_MOST_SEQUENCE_LENGTH, _SEQUENCES = 1024, 8
_TOKENS = "tokens"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a text will be read.

    Attributes:
        tokens: How many tokens are trained on.
        sequence_length: Tokens of a sequence.
        seed: Of the order.
    """

    tokens: int
    sequence_length: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a comparison, tokenised.

    Attributes:
        data: The sources, as the `data` of a recipe has them.
        fingerprints: What identifies the tokens.
        labels: The names of the texts: `train`, and `validation` if it was named.
        notes: What a reader of the losses must know.
    """

    data: Mapping[str, Sequence[Mapping[str, str]]]
    fingerprints: tuple[str, ...]
    labels: Mapping[str, Sequence[str]]
    notes: tuple[str, ...]


def shared_settings(
    folder: Path, *, sequence_length: int | None, batch_tokens: int | None, on_cpu: bool
) -> tuple[dict[str, Any], int]:
    """Return the keys of a recipe that depend on the base and the machine, and its sequence length.

    Args:
        folder: The base.
        sequence_length: Tokens seen together; None takes up to 1024 of them.
        batch_tokens: Tokens of a step; None takes 8 sequences.
        on_cpu: Whether accelerators are left alone.

    Raises:
        UsageError: The batch is no multiple of the sequence length, or the base lacks positions.
    """
    import torch

    config, _, _ = read_config(LocalFolder(folder))
    positions = config.get("max_position_embeddings")
    length = sequence_length or min(_MOST_SEQUENCE_LENGTH, positions or _MOST_SEQUENCE_LENGTH)
    if positions:
        try:
            check_sequence_length(length, positions)
        except UsageError as error:
            raise UsageError(str(error), hint=f"--sequence-length {positions}") from None
    tokens = batch_tokens or _SEQUENCES * length
    if tokens % length:
        raise UsageError(f"--batch-tokens {tokens} is no multiple of the sequence length {length}")
    sequences = tokens // length
    on_gpu = torch.cuda.is_available() and not on_cpu
    settings = {
        "batch_tokens": tokens,
        "micro_batch_size": next(n for n in range(_SEQUENCES, 0, -1) if sequences % n == 0),
        "precision": "bf16" if on_gpu else "fp32",
    }
    return settings, length


def held_out_text(train: Sequence[TextSource]) -> list[TextSource]:
    """Return what is held out where nobody says: of the demo text its own part, else nothing."""
    if [source.dataset for source in train] == [DEMO]:
        return [TextSource(dataset=DEMO, split=VALIDATION)]
    return []


def tokenised(
    folder: Path,
    out: Path,
    train: Sequence[TextSource],
    validation: Sequence[TextSource],
    client: HubClient,
    progress: Progress,
    *,
    plan: Reading,
) -> Texts:
    """Tokenise every text once, and make sure that it can be trained on as it will be read.

    Args:
        folder: The base, whose tokenizer is used.
        out: The folder of the comparison.
        train: The text to train on.
        validation: The text that is held out; without, a part of the other is.
        client: The connection to the Hub.
        progress: Told how it goes on, and what a reader of the losses must know.
        plan: How the text will be read.

    Raises:
        GrowthError: A text or the tokenizer cannot be read, or a text is too short.
    """
    config, _, _ = read_config(LocalFolder(folder))
    try:
        tokenizer = open_tokenizer(folder)
    except ModelError as error:
        raise ModelError(str(error), hint="put its tokenizer.json beside the weights") from error

    def opened(what: str, sources: Sequence[TextSource]) -> tuple[TokenView, ...]:
        return open_sources(
            sources,
            tokenizer,
            out / _TOKENS / what,
            vocab_size=int(config["vocab_size"]),
            client=client,
            progress=progress,
        )

    views = {"train": opened("train", train)}
    if validation:
        views["validation"] = opened("validation", validation)
    length = plan.sequence_length
    try:
        corpus = corpus_of(
            views["train"],
            views.get("validation", ()),
            sequence_length=length,
            seed=plan.seed,
        )
        weights = [1.0] * len(train)
        order = BlockOrder(corpus.train, weights, sequence_length=length, seed=plan.seed)
    except TrainingError as error:
        hint = f"give more text, or a --sequence-length below {length}"
        if not validation:
            hint += ", or held-out text as --validation"
        raise TrainingError(str(error), hint=hint) from error
    epochs = zip(corpus.train, order.epochs(plan.tokens // length), strict=True)
    notes = [
        *corpus.notes,
        *(f"{view.label} is trained on {n:.3g} times over" for view, n in epochs if n > 1),
    ]
    for note in notes:
        progress.say(f"Note: {note}")
    return Texts(
        data={
            what: [{"path": str(v.files.folder)} for v in found] for what, found in views.items()
        },
        fingerprints=tuple(view.fingerprint for found in views.values() for view in found),
        labels={what: [view.label for view in found] for what, found in views.items()},
        notes=tuple(notes),
    )
