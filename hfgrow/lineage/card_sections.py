"""Sections of a model card: training, compute, what growth changed, numbers, benchmarks."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hfgrow.checkpoint.files import LOSS_PICTURE, PICTURE, REPO_NAME, WIDTHS_PICTURE
from hfgrow.console import count
from hfgrow.errors import printable
from hfgrow.lineage.describe import (
    changed_experts,
    changed_widths,
    describe_learning_rate,
    describe_off_beat,
    describe_seams,
    describe_steps,
    layer_rows,
    named,
    plain,
    width_name,
)
from hfgrow.lineage.drawings import GrownAxis, layer_picture, width_picture
from hfgrow.lineage.kinds import as_phrase
from hfgrow.lineage.ledger import Ledger, ledger, rows
from hfgrow.lineage.manifest import Evaluated, Link, Manifest, TrainingLink, TrainingSource
from hfgrow.lineage.records import DEMO_TEXT, Benchmark
from hfgrow.lineage.tables import markdown_table
from hfgrow.plan.families.table import AXIS_KEYS
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.plan import connection_rate
from hfgrow.plan.promise import Measured

_MOST_SOURCES = 50
_MOST_DATASETS = 300
# A longer table of layers is folded.
_MOST_ROWS = 14
# The axes that config.json names otherwise than by one key each.
_AXES = {**AXIS_KEYS, "qk_dim": "head_dim of queries and keys"}


def training_section(manifest: Manifest, link: TrainingLink, *, picture: bool) -> list[str]:
    """Return the section about the last training; `picture`: its loss is drawn beside the card."""
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
        *markdown_table(
            ("trained on", "from", "tokens", "weight"), map(_source, link.data[:_MOST_SOURCES])
        ),
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
        *markdown_table(header, ([plain(cell) for cell in row] for row in table)),
        "",
        "6ND is 6 FLOPs for each parameter and token; the exact count is that of matrices and "
        "attention, forward and backward. A growth trains nothing, unless its maps were learned.",
        *_of_experts(found),
    ]


def _of_experts(found: Ledger) -> list[str]:
    """Say what 6ND counts of a mixture of experts, and what it would be with all of it."""
    if all(entry.num_active_parameters is None for entry in found.entries):
        return []
    of_all = "unknown" if found.of_all is None else f"{found.of_all:.3g}"
    return [
        "",
        "Of a mixture of experts 6ND counts the parameters that a token passes, its active ones; "
        f"with all of them what is recorded here would be {of_all} FLOPs.",
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
        name for name in found if name and name != DEMO_TEXT and REPO_NAME.fullmatch(name)
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
    table = []
    for found in evaluations:
        cells = [_code(found.label), f"{found.num_tokens:,}"]
        cells += [_real(found.before_growth)] if knows_growth else []
        cells += [_real(found.before), _real(found.after)]
        cells += [_recovered(found)] if knows_growth else []
        cells += [_real(found.bits_per_byte_before), _real(found.bits_per_byte_after)]
        table.append(cells)
    lines = [*markdown_table(header, table), "", "Losses are in nats per token."]
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


def _source(source: TrainingSource) -> tuple[str, ...]:
    if source.dataset and source.dataset != DEMO_TEXT:
        name = plain(source.dataset)
        where = f"Hub dataset [{name}](https://huggingface.co/datasets/{name})"
    else:
        where = "local text"
    # As it is typed, with its brackets; without parentheses these are no link.
    split = re.sub(r"[^a-zA-Z0-9_.:%\[\]-]", "_", source.split)
    where += f", split `{split}`"
    return _code(source.label), where, f"{source.tokens:,}", f"{source.weight:g}"


def _code(text: str) -> str:
    return f"`{as_phrase(text)}`"


def changed_section(link: Link, manifest: Manifest) -> list[str]:
    """Return the section about what the last growth of a lineage changed."""
    lines = ["## What changed", ""]
    if link is not manifest.link or manifest.trained_since:
        lines = ["## What growth changed", "", *_what_follows_is_of(link, manifest)]
    if link.changes_layers:
        lines += _layers(link)
    if link.grown_axes:
        lines += [f"![where the units of each width come from]({WIDTHS_PICTURE})", ""]
    for name in dict.fromkeys(step.operator for step in link.steps):
        if name in OPERATORS:
            lines += [f"{name}: {OPERATORS[name].summary} ({OPERATORS[name].paper})", ""]
    return [*lines, _how_made(link)]


def _how_made(link: Link) -> str:
    """Say which tensors were copied: as a fact only where a hash or a comparison stands behind."""
    copied = f"as {plain(link.dtype)}" if link.dtype else "byte for byte"
    made = f"{link.num_computed} tensors are computed from the base's, any others copied {copied}"
    if link.is_proved:
        return (
            f"{made}. The same command gives the same bytes."
            if link.num_computed
            else f"Embeddings, final norm and head are the base's. Every tensor is copied {copied}."
        )
    planned = made if link.num_computed else f"every tensor is copied {copied} from the base"
    return (
        f"By the plan of the growth {planned}; the same command gives the same bytes. As far as is "
        "recorded, nothing has compared the grown weights with the base since they were written."
    )


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
    return [
        f"![layer map]({PICTURE})",
        "",
        *_folded(markdown_table(("layers", "come from the base's layers"), layer_rows(layer_map))),
        "",
        f"Layers are counted from 0. Connection rate Rc {connection_rate(layer_map):.1%}; "
        f"{describe_seams(layer_map)}.",
        "",
    ]


def _folded(table: Sequence[str]) -> list[str]:
    """Return a table, folded if it is long."""
    if len(table) <= _MOST_ROWS:
        return list(table)
    summary = f"<details><summary>The {len(table) - 2} rows of the layer map</summary>"
    return [summary, "", *table, "", "</details>"]


def numbers_section(link: Link, *, is_trained: bool) -> list[str]:
    """Return the section about sizes and losses of a growth that training may have followed."""
    base, result = link.base, link.result
    become_experts = bool(result.num_experts) and not base.num_experts
    lines = [
        "## Numbers of the growth" if is_trained else "## Numbers",
        "",
        "| | base | grown |",
        "|---|---|---|",
        f"| layers | {base.num_hidden_layers} | {result.num_hidden_layers} |",
        *(
            f"| {width_name(key, become_experts=become_experts)} | {one} | {two} |"
            for key, one, two in changed_widths(base, result)
        ),
        *(f"| {what} | {one} | {two} |" for what, one, two in changed_experts(base, result)),
        f"| parameters | {base.num_parameters:,} | {result.num_parameters:,} |",
        *(
            [
                f"| parameters a token passes | {base.num_passed_parameters:,} "
                f"| {result.num_passed_parameters:,} |"
            ]
            if result.num_experts
            else []
        ),
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


def elsewhere_section(link: Link, *, is_trained: bool) -> list[str]:
    """Return the section about what other programs have wrong; empty if nothing is known.

    Args:
        link: The last growth.
        is_trained: Whether training followed, which leaves no zeros.
    """
    lines = []
    if link.off_beat is not None:
        base = plain(link.base.repo_id or link.base.name)
        told = describe_off_beat(link.off_beat, base)
        lines += [re.sub("(hfgrow partial .*)", r"`\1`", told) + "."]
    if link.zero_rows and not is_trained:
        lines += ([""] if lines else []) + _for_adapters(link.zero_rows)
    return ["## In other programs", "", *lines] if lines else []


def _for_adapters(zero_rows: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return what to tell PEFT of modules that not every adapter can start from."""
    modules: dict[tuple[int, ...], list[str]] = {}
    for module, layers in zero_rows.items():
        modules.setdefault(layers, []).append(module)
    lists = [
        f'[f"layers.{{i}}.{{name}}" for i in {_as_python(layers)} for name in {json.dumps(names)}]'
        for layers, names in modules.items()
    ]
    return [
        "Growth left rows of zeros in some matrices. LoRA trains them. In PEFT DoRA gives NaN "
        "there; OFT, BOFT, HRA and IA3 leave them as they are, as do PiSSA and DeLoRA where all "
        "rows are zeros. For these, exclude the modules and train them whole:",
        "",
        "```python",
        f"zero = {lists[0]}",
        *(f"zero += {more}" for more in lists[1:]),
        "# of LoraConfig or another: exclude_modules=zero, modules_to_save=zero",
        "```",
    ]


def _as_python(layers: tuple[int, ...]) -> str:
    """Return layers as a range where they are one, else as a list."""
    step = layers[1] - layers[0] if len(layers) > 1 else 1
    evenly = range(layers[0], layers[-1] + 1, max(step, 1))
    if layers != tuple(evenly):
        return str(list(layers))
    return f"range({evenly.start}, {evenly.stop}{f', {step}' if step > 1 else ''})"


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


def drawings_of(link: Link) -> dict[str, str]:
    """Return the pictures of what a growth changed, by file name."""
    title = f"{printable(link.base.name, 30)} to {printable(link.result.name, 40)}"
    drawn: dict[str, str] = {}
    if link.changes_layers:
        base = link.base
        drawn[PICTURE] = layer_picture(
            base.num_hidden_layers, link.layer_sources, title, base.layer_types or ()
        )
    if link.grown_axes:
        axes = [GrownAxis(_AXES.get(name, name), *found) for name, found in link.grown_axes]
        drawn[WIDTHS_PICTURE] = width_picture(axes, title)
    return drawn


def model_index(benchmarks: tuple[Benchmark, ...], name: str) -> list[dict[str, Any]]:
    """Return the `model-index` of a card's metadata.

    Only tasks whose dataset lies on the Hub are listed, since the Hub wants its repository, and
    only results of all examples.
    """
    results: dict[str, dict[str, Any]] = {}
    for found in benchmarks:
        if found.dataset is None or found.is_limited:
            continue
        dataset = {"name": found.task, "type": found.dataset}
        dataset |= {"config": found.config} if found.config else {}
        dataset |= {"split": found.split} if found.split else {}
        result = results.setdefault(
            found.task,
            {
                "task": {"type": "text-generation", "name": "Text Generation"},
                "dataset": dataset,
                "metrics": [],
                "source": {
                    "name": found.harness,
                    "url": "https://github.com/EleutherAI/lm-evaluation-harness",
                },
            },
        )
        metric = {"type": found.metric.partition(",")[0], "value": found.value}
        result["metrics"].append(metric | {"name": f"{found.metric}, {found.num_fewshot}-shot"})
    return [{"name": name, "results": list(results.values())}] if results else []


def benchmark_section(benchmarks: tuple[Benchmark, ...]) -> list[str]:
    """Return the section of the card about them."""
    table = (
        (
            f"`{found.task}`",
            f"`{found.metric}`",
            _real(found.value),
            _real(found.stderr),
            str(found.num_fewshot),
            f"{found.num_samples:,}{_of_all(found)}",
        )
        for found in benchmarks
    )
    header = ("task", "metric", "value", "standard error", "few-shot", "examples")
    harnesses = ", ".join(dict.fromkeys(found.harness for found in benchmarks))
    return [
        "## Benchmarks",
        "",
        *markdown_table(header, table),
        "",
        f"Measured on these weights by {harnesses}.",
    ]


def _of_all(found: Benchmark) -> str:
    return f" of {found.num_all_samples:,}" if found.num_all_samples else ""
