"""What the probes of a comparison have in common: their batches, and their text, tokenised once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.errors import UsageError
from hfgrow.hub.client import HubClient
from hfgrow.progress import Progress
from hfgrow.train.data.corpus import open_sources
from hfgrow.train.data.overlap import overlaps
from hfgrow.train.data.sources import DEMO, VALIDATION, TextSource
from hfgrow.train.data.tokenizer import open_tokenizer

_MOST_SEQUENCE_LENGTH, _SEQUENCES = 1024, 8
_TOKENS = "tokens"


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
        UsageError: The batch is no multiple of the sequence length.
    """
    import torch

    config, _, _ = read_config(LocalFolder(folder))
    most = int(config.get("max_position_embeddings") or _MOST_SEQUENCE_LENGTH)
    length = sequence_length or min(_MOST_SEQUENCE_LENGTH, most)
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
) -> tuple[dict[str, Any], list[str]]:
    """Tokenise every text once; return the `data` of the recipes, and what identifies each text.

    Args:
        folder: The base, whose tokenizer is used.
        out: The folder of the comparison.
        train: The text to train on.
        validation: The text that is held out.
        client: The connection to the Hub.
        progress: Told how it goes on.

    Raises:
        GrowthError: A text or the tokenizer cannot be read.
    """
    config, _, _ = read_config(LocalFolder(folder))
    opened = [
        open_sources(
            sources,
            open_tokenizer(folder),
            out / _TOKENS / what,
            vocab_size=int(config["vocab_size"]),
            client=client,
            progress=progress,
        )
        for what, sources in (("train", train), ("validation", validation))
        if sources
    ]
    for overlap in overlaps(opened[1], opened[0]) if validation else ():
        progress.say(f"Note: {overlap.warning}")
    data = {
        what: [{"path": str(view.files.folder)} for view in views]
        for what, views in zip(("train", "validation"), opened, strict=False)
    }
    return data, [view.fingerprint for views in opened for view in views]
