"""The command `hfgrow eval`: models side by side on text, and on benchmarks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.amounts import amount
from hfgrow.ancestors import base_folder
from hfgrow.errors import ModelError, UsageError, printable
from hfgrow.extras import require
from hfgrow.hub.client import HubClient
from hfgrow.manifest import read_manifest
from hfgrow.numbers import count
from hfgrow.source import base_name, local_folder, locate

from . import options
from .data import text_source
from .output import Console
from .table import table_lines

_REQUIRED = ("torch", "transformers", "accelerate", "safetensors", "numpy", "tokenizers")
_COLUMNS = ("model", "parameters", "tokens", "bytes", "nats/token", "perplexity", "bits/byte")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("eval", rich_help_panel="Train", no_args_is_help=True)(evaluate)


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help=f"One or more. {options.MODEL_HELP}")
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="SOURCE",
            help="Text as `hfgrow data prepare` takes it, prepared tokens, or `demo`: what the "
            "demo model was not trained on. Can be given several times.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Of a dataset.  [default: validation; of files train]"),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Configuration of a dataset of the Hub.")
    ] = None,
    text_column: Annotated[
        str, typer.Option("--text-column", help="The column of the text.")
    ] = "text",
    tokens: Annotated[
        str,
        typer.Option(
            "--tokens", metavar="N", help="The most tokens of a text, by the first model's count."
        ),
    ] = "1M",
    sequence_length: Annotated[
        int | None,
        typer.Option(
            "--sequence-length",
            min=2,
            help="Tokens that are seen together.  [default: up to 1024, as far as all models go]",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="MODEL", help="Whose tokenizer all models take."),
    ] = None,
    with_base: Annotated[
        bool,
        typer.Option(
            "--with-base", help="Put before each model what it was grown or trained from."
        ),
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...  [default: a GPU if any]")
    ] = None,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Measure models side by side: bits per byte, nats per token and perplexity on given text.

    Bits per byte compare across tokenizers, the other two do not. See docs/evaluation.md.
    """
    require("hfgrow eval", "pydantic", *_REQUIRED)
    if not text:
        raise UsageError("there is no text to measure on", hint="add --text demo, or --text FILE")
    max_tokens = int(amount(tokens, "--tokens"))
    sources = [_source(word, text_column, split, name) for word in text]
    from hfgrow.train.side_by_side import Candidate, device_of, side_by_side

    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    where = device_of(device)
    found = _models(models, revision, with_base, client, console)
    own = None
    if tokenizer is not None:
        own = local_folder(locate(tokenizer, None, client, console), client, console)
    losses, length = side_by_side(
        [Candidate(name, folder, own or folder) for name, folder in found],
        sources,
        max_tokens=max_tokens,
        sequence_length=sequence_length,
        device=where,
        client=client,
        progress=console,
    )
    lines: list[str] = []
    document: list[dict[str, Any]] = []
    for i, first in enumerate(losses[0].texts):
        lines += [
            *([""] if lines else []),
            f"text {printable(first.loss.label)}",
            *_table(losses, i),
        ]
        rows = [{"model": model.name, **_row(model, i)} for model in losses]
        document.append({"text": first.loss.label, "models": rows})
    console.result("\n".join(lines), {"sequence_length": length, "texts": document})


def _source(word: str, text_column: str, split: str | None, name: str | None) -> Any:
    from dataclasses import replace

    source = text_source(word, text_column)
    if source.path is not None:
        if name is not None:
            raise UsageError("--name is of a dataset of the Hub; files have no configurations")
        return replace(source, split=split or "train")
    return replace(source, split=split or "validation", name=name)


def _models(
    models: Sequence[str],
    revision: str | None,
    with_base: bool,
    client: HubClient,
    console: Console,
) -> list[tuple[str, Path]]:
    """Return names and folders of models, with the base before each if that is wanted."""
    if revision is not None and len(models) > 1:
        raise UsageError(
            "--revision is of one model, and there are several",
            hint="write hf://org/name@rev",
        )
    found: dict[Path, str] = {}
    for word in models:
        ref = locate(word, revision, client, console)
        folder = local_folder(ref, client, console)
        manifest = read_manifest(folder) if with_base else None
        if manifest is not None:
            try:
                base = base_folder(folder, manifest, None, client, console)
            except ModelError as error:
                hint = "leave out --with-base, and name it as a MODEL"
                raise ModelError(str(error), hint=hint) from error
            found.setdefault(base.resolve(), printable(manifest.link.base.name))
        elif with_base:
            console.say(f"Note: {printable(word)} has no lineage, so it has no base")
        found.setdefault(folder.resolve(), word if ref.path else ref.repo_id or base_name(ref))
    return [(name, folder) for folder, name in found.items()]


def _row(model: Any, text: int) -> dict[str, Any]:
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


def _table(losses: Sequence[Any], text: int) -> list[str]:
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
