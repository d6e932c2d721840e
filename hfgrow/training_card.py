"""What the card of a trained model says of its training: text, settings, losses, cost."""

import re
from collections.abc import Sequence

from hfgrow.checkpoint.files import LOSS_PICTURE
from hfgrow.console import count
from hfgrow.describe import describe_learning_rate, plain
from hfgrow.fields import as_phrase
from hfgrow.ledger import ledger, rows
from hfgrow.lineage import Evaluated, Link, Manifest, TrainingLink, TrainingSource
from hfgrow.trained import DATASET, DEMO_TEXT

_MOST_SOURCES = 50
_MOST_DATASETS = 300


def training_section(manifest: Manifest, link: TrainingLink, *, picture: bool) -> list[str]:
    """Return the section about the last training.

    Args:
        manifest: The lineage.
        link: Its last training.
        picture: Whether the curve of the loss lies beside the card.
    """
    lines = ["## Training", ""]
    if picture:
        lines += [f"![loss]({LOSS_PICTURE})", ""]
    lines += [
        "| | |",
        "|---|---|",
        f"| tokens | {link.compute.tokens:,} |",
        f"| optimizer | {_code(link.optimizer)} |",
        f"| learning rate | {describe_learning_rate(link)}, schedule {_code(link.schedule)} |",
        f"| batch | {link.batch_tokens:,} tokens, in sequences of {link.sequence_length:,} |",
        f"| precision | {_code(link.precision)} |",
        f"| trained weights | {_code(link.trainable)} |",
        f"| seed | {link.seed} |",
        *_settings(link),
        "",
        "| trained on | from | tokens | weight |",
        "|---|---|---|---|",
        *(_source(source) for source in link.data[:_MOST_SOURCES]),
    ]
    if len(link.data) > _MOST_SOURCES:
        lines.append(f"| and {len(link.data) - _MOST_SOURCES} more, in hfgrow.json | | | |")
    if link.evaluations:
        lines += ["", *_losses(link.evaluations, _has_grown(manifest, link))]
    if len(manifest.trainings) > 1:
        earlier = len(manifest.trainings) - 1
        lines += [
            "",
            f"This is the last of {earlier + 1} trainings; hfgrow.json has the others too.",
        ]
    return lines


def compute_section(manifest: Manifest) -> list[str]:
    """Return the section about what everything has cost, from the root on."""
    found = ledger(manifest)
    header, *table = rows(found)
    return [
        "## Compute",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(plain(cell) for cell in row)} |" for row in table),
        "",
        "6ND is 6 FLOPs for each parameter and token; the exact count is that of matrices and "
        "attention, forward and backward. A growth trains nothing, unless its maps were learned.",
    ]


def outcome(evaluated: Evaluated) -> str:
    """Return in a sentence what training did to the loss on a text."""
    text = f"Loss on {_code(evaluated.label)}, nats per token:"
    if evaluated.before_growth is None:
        return f"{text} {evaluated.before:.3f} before training, {evaluated.after:.3f} after it."
    return (
        f"{text} {evaluated.before_growth:.3f} before growth, {evaluated.before:.3f} just after "
        f"it, {evaluated.after:.3f} after training."
    )


def datasets(trainings: Sequence[TrainingLink]) -> list[str]:
    """Return the repositories of the datasets of the Hub that were trained on, each once."""
    found = (source.dataset for link in trainings for source in link.data)
    names = dict.fromkeys(
        name for name in found if name and name != DEMO_TEXT and DATASET.fullmatch(name)
    )
    return list(names)[:_MOST_DATASETS]


def _settings(link: TrainingLink) -> list[str]:
    told = (f"{key} {value}" for key, value in link.settings.items())
    return [f"| other settings | {', '.join(map(_code, told))} |"] if link.settings else []


def _has_grown(manifest: Manifest, link: TrainingLink) -> bool:
    """Say whether the link just before a training is a growth."""
    at = next(i for i, other in enumerate(manifest.chain) if other is link)
    return at > 0 and isinstance(manifest.chain[at - 1], Link)


def _losses(evaluations: Sequence[Evaluated], has_grown: bool) -> list[str]:
    knows_growth = any(found.before_growth is not None for found in evaluations)
    before = "just after growth" if has_grown else "before training"
    header = ["held-out text", "tokens"]
    header += ["loss just before growth"] if knows_growth else []
    header += [f"loss {before}", "loss after training"]
    header += ["tokens to recover"] if knows_growth else []
    header += [f"bits per byte {before}", "after training"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for found in evaluations:
        cells = [_code(found.label), f"{found.num_tokens:,}"]
        cells += [_real(found.before_growth)] if knows_growth else []
        cells += [_real(found.before), _real(found.after)]
        cells += [_recovered(found)] if knows_growth else []
        cells += [_real(found.bits_per_byte_before), _real(found.bits_per_byte_after)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Losses are in nats per token."]
    if knows_growth:
        lines[-1] += (
            " Tokens to recover: trained on after growth until the loss was back at what it was "
            "just before."
        )
    return lines


def _recovered(found: Evaluated) -> str:
    if found.before_growth is None:
        return "-"
    is_above = found.after > found.before_growth
    tokens = 0 if found.before <= found.before_growth else found.recovered_tokens
    if tokens is None:
        return "not recovered" if is_above else "not seen"
    return count(tokens) + ", higher again in the end" * is_above


def _real(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _source(source: TrainingSource) -> str:
    if source.dataset and source.dataset != DEMO_TEXT:
        name = plain(source.dataset)
        where = f"Hub dataset [{name}](https://huggingface.co/datasets/{name})"
    else:
        where = "local text"
    # As it is typed, with its brackets; without parentheses these are no link.
    split = re.sub(r"[^a-zA-Z0-9_.:%\[\]-]", "_", source.split)
    where += f", split `{split}`"
    return f"| {_code(source.label)} | {where} | {source.tokens:,} | {source.weight:g} |"


def _code(text: str) -> str:
    return f"`{as_phrase(text)}`"
