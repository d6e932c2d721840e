"""Trainings and their cost in words."""

from hfgrow.describe import describe_learning_rate, describe_training
from hfgrow.errors import printable
from hfgrow.ledger import Ledger, rows
from hfgrow.lineage import TrainingLink

_MOST_TEXTS = 5


def training_lines(link: TrainingLink) -> list[str]:
    """Return a training as `hfgrow lineage` tells it."""
    labels = [printable(source.label) for source in link.data]
    more = f", and {len(labels) - _MOST_TEXTS} more" if len(labels) > _MOST_TEXTS else ""
    lines = [
        f"{describe_training(link)} of {', '.join(labels[:_MOST_TEXTS])}{more}",
        f"{printable(link.optimizer)}, learning rate {describe_learning_rate(link)}, "
        f"{printable(link.schedule)}, {link.batch_tokens:,} tokens a step",
    ]
    if link.trainable != "all":
        lines.append(f"trained weights: {printable(link.trainable)}")
    for found in link.evaluations[:_MOST_TEXTS]:
        growth = "" if found.before_growth is None else f"{found.before_growth:.3f} before growth, "
        lines.append(
            f"loss on {printable(found.label)}: {growth}{found.before:.3f} -> {found.after:.3f}"
        )
    return lines


def ledger_lines(found: Ledger) -> list[str]:
    """Return a ledger as a table."""
    table = [[printable(cell, 40) for cell in row] for row in rows(found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
