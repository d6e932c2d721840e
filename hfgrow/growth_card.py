"""What the card says of a growth: layers, operators, sizes, and what was measured."""

from hfgrow.checkpoint.files import PICTURE
from hfgrow.describe import (
    changed_widths,
    describe_steps,
    layer_rows,
    named,
    plain,
)
from hfgrow.errors import printable
from hfgrow.lineage import Link, Manifest
from hfgrow.operators import OPERATORS
from hfgrow.picture import layer_picture
from hfgrow.plan.plan import connection_rate, seams
from hfgrow.plan.promise import Measured


def changed_section(link: Link, manifest: Manifest) -> list[str]:
    """Return the section about what a growth changed.

    Args:
        link: The growth.
        manifest: The lineage, in which it is the last growth.
    """
    lines = ["## What changed", ""]
    if link is not manifest.link:
        lines = ["## What growth changed", "", *_what_follows_is_of(link, manifest)]
    if link.changes_layers:
        lines += _layers(link)
    for name in dict.fromkeys(step.operator for step in link.steps):
        if name in OPERATORS:
            lines += [f"{name}: {OPERATORS[name].summary} ({OPERATORS[name].paper})", ""]
    copied = f"as {plain(link.dtype)}" if link.dtype else "byte for byte"
    lines.append(
        f"{link.num_computed} tensors are computed from the base's, the others copied {copied}. "
        "The same command gives the same bytes."
        if link.num_computed
        else f"Embeddings, final norm and head are the base's. Every tensor is copied {copied}."
    )
    return lines


def _what_follows_is_of(link: Link, manifest: Manifest) -> list[str]:
    """Return what to know before reading of a growth that training came after."""
    num_growths = len(manifest.chain) - len(manifest.trainings)
    which = f"the last of {num_growths} growths" if num_growths > 1 else "the growth"
    return [
        f"This is about {which}, of {named(link.base)} by `{describe_steps(link.steps)}`, as "
        "it left the weights; training has changed them since.",
        "",
    ]


def _layers(link: Link) -> list[str]:
    layer_map = link.layer_sources
    found = seams(layer_map)
    shown = ", ".join(map(str, found[:12])) + (", ..." if len(found) > 12 else "")
    return [
        f"![layer map]({PICTURE})",
        "",
        "| layers | come from the base's layers |",
        "|---|---|",
        *(f"| {left} | {right} |" for left, right in layer_rows(link.layer_sources)),
        "",
        f"Layers are counted from 0. Connection rate Rc {connection_rate(layer_map):.1%}; "
        + (f"seams before layers {shown}." if found else "no seam."),
        "",
    ]


def numbers_section(link: Link, *, is_trained: bool) -> list[str]:
    """Return the section about sizes and losses, base and grown.

    Args:
        link: The growth.
        is_trained: Whether a training came after it.
    """
    base, result = link.base, link.result
    lines = [
        "## Numbers of the growth" if is_trained else "## Numbers",
        "",
        "| | base | grown |",
        "|---|---|---|",
        f"| layers | {base.num_hidden_layers} | {result.num_hidden_layers} |",
        *(f"| {key} | {one} | {two} |" for key, one, two in changed_widths(base, result)),
        f"| parameters | {base.num_parameters:,} | {result.num_parameters:,} |",
        f"| without embeddings | {base.num_non_embedding_parameters:,} "
        f"| {result.num_non_embedding_parameters:,} |",
    ]
    if link.measured:
        lines += _measured(link.measured)
    lines += [
        "",
        "The growth is function preserving: the model computes what its base does, up to rounding."
        if link.preserves_function
        else "The growth is not function preserving: its result is a start for training."
        if is_trained
        else "The growth is not function preserving: a start for training, not a better model.",
    ]
    return lines


def _measured(measured: Measured) -> list[str]:
    of = f" (the base's largest is {measured.max_abs_logit:.3g})" if measured.max_abs_logit else ""
    kl = "" if measured.mean_kl is None else f"KL(base, grown) is {measured.mean_kl:.3g} nats; "
    return [
        f"| loss on {plain(measured.text)}, nats per token | {measured.base_loss:.4f} "
        f"| {measured.grown_loss:.4f} |",
        "",
        f"Measured on {measured.num_tokens} tokens in {plain(measured.dtype)}: logits differ "
        f"by {measured.mean_abs_dlogit:.3g} on average, {measured.max_abs_dlogit:.3g} at most{of}; "
        f"{kl}the most likely next token agrees at {measured.argmax_agreement:.1%} of the places.",
    ]


def layers_of(link: Link) -> str:
    """Return the picture of a growth's layers."""
    title = f"{printable(link.base.name, 30)} to {printable(link.result.name, 40)}"
    return layer_picture(link.base.num_hidden_layers, link.layer_map, title)
