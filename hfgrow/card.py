"""The model card: README.md made from hfgrow.json, nothing of it written by hand."""

from typing import Any

from hfgrow.describe import changed_widths, command_line, describe_steps, layer_rows, plain
from hfgrow.errors import printable
from hfgrow.lineage import Link, Manifest, Model
from hfgrow.measured import Measured
from hfgrow.names import CARD, PICTURE
from hfgrow.operators import OPERATORS
from hfgrow.picture import layer_picture
from hfgrow.plan import connection_rate, seams


def card_files(manifest: Manifest, repo_id: str | None = None) -> dict[str, str]:
    """Return the card, and the picture of the layers if they changed, by file name.

    Args:
        manifest: The model's lineage.
        repo_id: Where the model will be pushed, if that is known.
    """
    link = manifest.link
    pictures = {PICTURE: _picture(link)} if link.changes_layers else {}
    return {CARD: _card(manifest, repo_id), **pictures}


def metadata(link: Link) -> dict[str, Any]:
    """Return the metadata block of the card.

    `base_model_relation` is `finetune`, the one of the Hub's four relations that makes the model
    tree list a grown model under its base.
    """
    tags = ["hfgrow", "model-growth"]
    for step in link.steps:
        tags += OPERATORS[step.operator].tags if step.operator in OPERATORS else ()
    block: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if link.base.repo_id:
        block |= {"base_model": link.base.repo_id, "base_model_relation": "finetune"}
    return block | {"tags": list(dict.fromkeys(tags))} | dict(link.card)


def _card(manifest: Manifest, repo_id: str | None) -> str:
    import yaml

    link = manifest.link
    block = yaml.safe_dump(metadata(link), sort_keys=False, allow_unicode=True)
    sections = (
        _introduction(link),
        _changed(link),
        _numbers(link),
        _use(link, repo_id),
        _reproduce(manifest, repo_id),
        _limits(manifest),
    )
    return f"---\n{block}---\n\n" + "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _introduction(link: Link) -> list[str]:
    base, result = link.base, link.result
    sizes = [f"{key} {before} to {after}" for key, before, after in changed_widths(base, result)]
    if result.num_hidden_layers != base.num_hidden_layers:
        sizes.insert(0, f"{base.num_hidden_layers} to {result.num_hidden_layers} layers")
    grown = f"grown from {', '.join(sizes)}" if sizes else "changed"
    larger = "larger than its base and " if result.num_parameters > base.num_parameters else ""
    return [
        f"# {plain(result.name)}",
        "",
        f"{_model_link(base)} {grown} by `{describe_steps(link.steps)}`, and not trained since.",
        f"It is {larger}a starting point for continued pretraining, not a better model yet.",
    ]


def _changed(link: Link) -> list[str]:
    lines = ["## What changed", ""]
    if link.changes_layers:
        lines += _layers(link)
    for name in dict.fromkeys(step.operator for step in link.steps):
        if name in OPERATORS:
            lines += [f"{name}: {OPERATORS[name].summary} ({OPERATORS[name].paper})", ""]
    copied = f"converted to {plain(link.dtype)}" if link.dtype else "byte for byte"
    lines.append(
        f"{link.num_computed} tensors are computed from the base's, the others copied {copied}. "
        "The same command gives the same bytes."
        if link.num_computed
        else f"Embeddings, final norm and head are the base's. Every tensor is copied {copied}."
    )
    return lines


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


def _numbers(link: Link) -> list[str]:
    base, result = link.base, link.result
    lines = [
        "## Numbers",
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


def _use(link: Link, repo_id: str | None) -> list[str]:
    name = repo_id or f"./{plain(link.result.name)}"
    return [
        "## How to use",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        'tokens = tokenizer("Once upon a time", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**tokens, max_new_tokens=20)[0]))",
        "```",
    ]


def _reproduce(manifest: Manifest, repo_id: str | None) -> list[str]:
    link = manifest.link
    name = repo_id or f"./{plain(link.result.name)}"
    made = ", ".join(f"{plain(key)} {plain(value)}" for key, value in link.versions.items())
    lines = [
        "## How to reproduce",
        "",
        "```bash",
        *(command_line(step_link) for step_link in manifest.chain),
        f"hfgrow reproduce {name}   # the same from the recorded chain, sha256 compared",
        "```",
        "",
        f"Made with {made}. Lineage, from the root:",
        "",
        *(f"{i + 1}. {_lineage_row(row.base)}" for i, row in enumerate(manifest.chain)),
        f"{len(manifest.chain) + 1}. this model",
    ]
    hashes = [(name, file.sha256) for name, file in link.base.files.items() if file.sha256]
    if hashes:
        lines += ["", "Weight files of the base:", ""]
        lines += [f"- `{plain(name)}` sha256 `{plain(digest)}`" for name, digest in hashes]
    return lines


def _limits(manifest: Manifest) -> list[str]:
    lines = [
        "## Limits",
        "",
        "- Not trained after growth: use it as the start of continued pretraining.",
        "- It knows what its base knows, with the base's biases and errors; read the base's card.",
    ]
    if "license" not in manifest.link.card:
        lines.append("- The base's card names no licence; ask its authors before you publish this.")
    return lines


def _picture(link: Link) -> str:
    title = f"{printable(link.base.name, 30)} to {printable(link.result.name, 40)}"
    return layer_picture(link.base.num_hidden_layers, link.layer_map, title)


def _model_link(model: Model) -> str:
    return f"`{plain(model.repo_id or model.name)}`"


def _lineage_row(model: Model) -> str:
    at = f" at commit `{plain(model.revision)}`" if model.revision else ""
    return f"{_model_link(model)}{at}, {model.num_hidden_layers} layers"
