"""What texts cost models, as a table and as JSON."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hfgrow.console import count
from hfgrow.errors import printable

from .output import Console
from .table import table_lines

if TYPE_CHECKING:
    from hfgrow.train.evaluate import ModelLoss

_COLUMNS = ("model", "parameters", "tokens", "bytes", "nats/token", "perplexity", "bits/byte")


def texts_measured(
    results: Iterable["ModelLoss"],
    sequence_length: int,
    console: Console,
    document: dict[str, Any],
) -> None:
    """Print what texts cost models, also of some models where another one fails.

    Args:
        results: The losses, measured as they are asked for.
        sequence_length: Tokens of a sequence, on which the numbers depend.
        console: Where they are printed.
        document: Gets them as `texts`, and `sequence_length`.
    """
    document["sequence_length"] = sequence_length
    done: list[ModelLoss] = []
    try:
        for one in results:
            done.append(one)
            document["texts"] = [
                {
                    "text": first.loss.label,
                    "models": [{"model": model.name, **_row(model, i)} for model in done],
                }
                for i, first in enumerate(done[0].texts)
            ]
    finally:
        for i, first in enumerate(done[0].texts if done else ()):
            if i:
                console.part("")
            console.part(
                f"text {printable(first.loss.label)}, {sequence_length:,} tokens seen together"
            )
            console.part("\n".join(_table(done, i)))


def _row(model: "ModelLoss", text: int) -> dict[str, Any]:
    found = model.texts[text]
    perplexity = found.perplexity
    return {
        "num_parameters": model.num_parameters,
        "num_tokens": found.loss.num_tokens,
        "num_bytes": found.num_bytes,
        "loss": found.loss.loss,
        "perplexity": perplexity if perplexity != float("inf") else None,
        "bits_per_byte": found.loss.bits_per_byte,
    }


def _table(losses: Sequence["ModelLoss"], text: int) -> list[str]:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for model in losses:
        found = model.texts[text]
        rows.append(
            (
                printable(model.name, 60),
                count(model.num_parameters),
                f"{found.loss.num_tokens:,}",
                f"{found.num_bytes:,}",
                f"{found.loss.loss:.4f}",
                f"{found.perplexity:.4g}",
                f"{found.loss.bits_per_byte:.4f}",
            )
        )
    return table_lines(rows, 0)
