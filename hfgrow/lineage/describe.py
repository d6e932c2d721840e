"""A lineage in words: steps as one types them, layer maps, measurements, trainings, the ledger."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from hfgrow.checkpoint.files import LEARNED_MAPS
from hfgrow.checkpoint.layout import DEFAULT_MAX_SHARD_NBYTES
from hfgrow.console import count
from hfgrow.errors import printable
from hfgrow.lineage.ledger import Ledger, rows
from hfgrow.lineage.manifest import Link, Model, TrainingLink
from hfgrow.lineage.tables import text_table
from hfgrow.plan.elsewhere import OffBeat
from hfgrow.plan.operators import ALL_OPERATORS
from hfgrow.plan.operators.operator import Mark
from hfgrow.plan.plan import GrowthStep, LayerSource, seams
from hfgrow.plan.promise import Measured

# Texts of a training that are told one by one.
_MOST_TEXTS = 5
_MOST_SEAMS = 12
# What a row of a layer map adds to where the layers come from.
_MODES = {
    "copy": "",
    "random": "",
    "zero": ", adding nothing yet",
    "average": ", averaged with the one above it",
    "aligned": ", aligned to and averaged with the one above it, adding nothing yet",
    "predicted": ", predicted between it and the one above it",
    "learned": ", mixed by learned maps",
}


def describe_step(operator: str, arguments: Mapping[str, object]) -> str:
    """Return an operator with its arguments as one types them."""
    return " ".join(_words(operator, arguments))


def describe_steps(steps: Sequence[GrowthStep]) -> str:
    """Return steps as one types them, one after the other."""
    return ", then ".join(describe_step(step.operator, step.arguments) for step in steps)


def told_steps(steps: Sequence[GrowthStep]) -> str:
    """Return steps as they are told, a file of maps by the begin of the hash that names it."""
    return LEARNED_MAPS.sub(lambda name: f"{name[0][:21]}...", describe_steps(steps))


def command_line(link: Link) -> str:
    """Return the command that makes a link's growth again, safe to paste into a shell.

    Behind the command of several steps stands a comment: the file that it takes, as YAML.
    """
    comment = ""
    if len(link.steps) == 1:
        operator, *options = _words(link.steps[0].operator, link.steps[0].arguments)
        words = ["hfgrow", operator, _base(link), *options]
    else:
        words = ["hfgrow", "apply", "steps.yaml", _base(link)]
        entries = [
            {step.operator: dict(step.arguments)} if step.arguments else step.operator
            for step in link.steps
        ]
        comment = f"  # steps.yaml: {json.dumps(entries)}"
    if link.base.revision:
        words += ["--revision", link.base.revision]
    if link.dtype:
        words += ["--dtype", link.dtype]
    if link.max_shard_nbytes != DEFAULT_MAX_SHARD_NBYTES:
        words += ["--max-shard-size", str(link.max_shard_nbytes)]
    return shlex.join(words) + comment


def describe_growth(link: Link) -> str:
    """Return what a growth did: `grown from 6 to 24 layers`."""
    base, result = link.base, link.result
    if result.num_experts and not base.num_experts:
        return (
            f"turned into a mixture of {result.num_experts} experts, of which a token passes "
            f"{result.num_experts_per_tok},"
        )
    sizes = [f"{key} {before} to {after}" for key, before, after in changed_widths(base, result)]
    sizes[:0] = [
        f"{before} to {after} {what}" for what, before, after in changed_experts(base, result)
    ]
    if result.num_hidden_layers != base.num_hidden_layers:
        sizes.insert(0, f"{base.num_hidden_layers} to {result.num_hidden_layers} layers")
    return f"grown from {', '.join(sizes)}" if sizes else "changed"


def changed_experts(base: Model, grown: Model) -> list[tuple[str, int, int]]:
    """Return what changed of the experts of a mixture: what it is, before, after."""
    counts = (
        ("experts", base.num_experts, grown.num_experts),
        ("experts a token", base.num_experts_per_tok, grown.num_experts_per_tok),
    )
    return [(what, one, two) for what, one, two in counts if one and two and one != two]


def describe_parameters(model: Model) -> str:
    """Return how many parameters a model has: `7.64 M parameters, 2.33 M for each token`."""
    found, active = f"{count(model.num_parameters)} parameters", model.num_active_parameters
    return found if active is None else f"{found}, {count(active)} for each token"


def describe_training(link: TrainingLink) -> str:
    """Return what a training did: `trained on 2.1 M tokens`."""
    return f"trained on {count(link.compute.tokens)} tokens"


def describe_learning_rate(link: TrainingLink) -> str:
    """Return the peak learning rates of a training: `0.0004, new layers 0.01`."""
    own = {
        words: rate
        for key, words in (
            ("new_learning_rate", "new layers"),
            ("embedding_learning_rate", "embeddings"),
        )
        if isinstance(rate := link.settings.get(key), int | float) and not isinstance(rate, bool)
    }
    covered = {"new": {"new layers"}, "new+embeddings": {"new layers", "embeddings"}}
    is_all = covered.get(link.trainable, {""}) <= own.keys()
    others = [] if is_all else [f"{link.learning_rate:g}"]
    return ", ".join(others + [f"{words} {rate:g}" for words, rate in own.items()])


# What other programs take for granted, by family.
_TAKEN_FOR_GRANTED = {
    "gemma3_text": "llama.cpp and mlx-lm look in every sixth layer of a Gemma 3 for the one "
    "without a window",
    "smollm3": "llama.cpp looks in every fourth layer of a SmolLM3 for the one without rotary "
    "embeddings",
}


def describe_off_beat(found: OffBeat, model: str) -> str:
    """Return what other programs have wrong, and the growth that they would have right."""
    told = (
        f"{_TAKEN_FOR_GRANTED[found.model_type]}. In this model they stand elsewhere, so there it "
        "computes something else, without a word"
    )
    if found.pattern is None:
        return told
    growth = shlex.join(["hfgrow", "partial", model, found.pattern])
    return f"{told}. Right there is what repeats whole periods: {growth}"


def changed_widths(base: Model, grown: Model) -> list[tuple[str, int, int]]:
    """Return the widths that changed: config key, before, after."""
    return [
        (key, before, after)
        for key, before in base.widths.items()
        if before is not None and (after := grown.widths[key]) is not None and after != before
    ]


def describe_widths(widths: Sequence[tuple[str, int, int]], *, become_experts: bool) -> str:
    """Return widths that changed: `intermediate_size 48 -> 96`.

    Args:
        widths: Config key, before, after.
        become_experts: Whether the model was dense, and is a mixture of experts now.
    """
    return ", ".join(
        f"{width_name(key, become_experts=become_experts)} {before} -> {after}"
        for key, before, after in widths
    )


def width_name(key: str, *, become_experts: bool) -> str:
    """Return what a width that changed is called: shards of an MLP are no narrower MLP."""
    return f"{key} of each expert" if become_experts and key == "intermediate_size" else key


def describe_seams(layer_map: Sequence[LayerSource]) -> str:
    """Return where a layer map has seams: `no seam`, `seams before layers 3, 6, 9`."""
    found = seams(layer_map)
    if len(found) < 2:
        return f"a seam before layer {found[0]}" if found else "no seam"
    shown = ", ".join(map(str, found[:_MOST_SEAMS])) + ", ..." * (len(found) > _MOST_SEAMS)
    return f"seams before layers {shown}"


def layer_rows(sources: Sequence[LayerSource]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a layer map: runs that climb through the base, or that stay on a layer."""
    start = 0
    while start < len(sources):
        first = sources[start]
        end = start + 1
        stride = sources[end].layer - first.layer if end < len(sources) else 0
        while (
            end < len(sources)
            and sources[end].mode == first.mode
            and stride in (0, 1)
            and sources[end].layer - sources[end - 1].layer == stride
        ):
            end += 1
        source = _range(first.layer, sources[end - 1].layer)
        if stride == 0 and end - start > 1:
            source += f", {end - start} times"
        if first.mode == "random":
            source = "none, fresh weights"
        yield _range(start, end - 1), source + _MODES.get(first.mode, f", {first.mode}")
        start = end


def named(model: Model) -> str:
    """Return a model as a card names it."""
    return f"`{plain(model.repo_id or model.name)}`"


def plain(text: object) -> str:
    """Return a text that no Markdown, HTML or shell reads as anything but text."""
    return re.sub(r"[^\w ./@:+=,-]", "_", printable(text, 200))


def _base(link: Link) -> str:
    return link.base.repo_id or plain(link.base.name)


def _words(operator: str, arguments: Mapping[str, object]) -> list[str]:
    words = [operator]
    row = ALL_OPERATORS.get(operator)
    for key, value in arguments.items():
        option = key.replace("_", "-")
        parameter = row.parameter(key) if row else None
        if parameter and Mark.OUTCOME in parameter.marks:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif parameter and parameter.is_positional:
            words.append(str(value))
        else:
            words += [f"--{option}", str(value)]
    return words


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def measured_short(measured: Measured) -> str:
    """Return a measurement as the end of a growth tells it."""
    return (
        f"loss {measured.base_loss:.3f} -> {measured.grown_loss:.3f} on {measured.num_tokens} "
        f"tokens, |dlogit| max {measured.max_abs_dlogit:.3g}, mean {measured.mean_abs_dlogit:.3g}"
        f"{_kl(measured)}"
    )


def measured_lines(measured: Measured | None) -> list[str]:
    """Return a measurement as `hfgrow verify` tells it."""
    if measured is None:
        return ["logits        not measured"]
    of = "" if measured.max_abs_logit is None else f" of max |logit| {measured.max_abs_logit:.3g}"
    return [
        f"loss          {measured.base_loss:.4f} -> {measured.grown_loss:.4f} nats per token on "
        f"{measured.num_tokens} tokens of {measured.text}, {measured.dtype}",
        f"logits        |dlogit| max {measured.max_abs_dlogit:.3g}{of}, mean "
        f"{measured.mean_abs_dlogit:.3g}; argmax agrees at {measured.argmax_agreement:.1%}"
        f"{_kl(measured)}",
    ]


def _kl(measured: Measured) -> str:
    return "" if measured.mean_kl is None else f", KL {measured.mean_kl:.3g} nats"


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


def ledger_lines(found: Ledger, width: int | None = None) -> list[str]:
    """Return a ledger as a table of lines that take no more than a width."""
    table = [[printable(cell, 40) for cell in row] for row in rows(found)]
    return text_table(table, left=range(len(table[0])), width=width)
