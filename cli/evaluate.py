"""The command `hfgrow eval`: models side by side on text, and on benchmarks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.amounts import amount
from hfgrow.errors import UsageError, printable
from hfgrow.extras import TRAINING, require
from hfgrow.harness import run_tasks
from hfgrow.hub.client import HubClient
from hfgrow.numbers import count
from hfgrow.source import local_folder, locate

from . import options
from .data import text_source
from .named_models import named_models
from .output import Console
from .table import table_lines
from .tasks import benchmark_lines, check_folder, named_tasks, record

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
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            metavar="A,B,...",
            help="Benchmarks of lm-evaluation-harness, or `paper` for those of 2405.15319; results "
            "go into hfgrow.json and the card of a folder here.",
        ),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option("--num-fewshot", min=0, help="Of --tasks.  [default: the task's own]"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="The most examples of each of --tasks.")
    ] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", help="Sequences at once of --tasks, or auto.")
    ] = "8",
    include_path: Annotated[
        Path | None,
        typer.Option("--include-path", metavar="DIR", help="Tasks of your own, for --tasks."),
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
    require("hfgrow eval", "pydantic", *TRAINING)
    if not text and tasks is None:
        raise UsageError(
            "there is no text to measure on and no task",
            hint="add --text demo, --text FILE, or --tasks paper",
        )
    wanted = None if tasks is None else named_tasks(tasks)
    if wanted is not None:
        require("--tasks", "lm_eval", extra="eval")
    elif (num_fewshot, limit, include_path) != (None, None, None):
        raise UsageError("--num-fewshot, --limit and --include-path are of --tasks")
    if include_path is not None and not include_path.is_dir():
        raise UsageError(f"there is no folder {printable(include_path, 200)}")
    max_tokens = int(amount(tokens, "--tokens"))
    sources = [_source(word, text_column, split, name) for word in text or ()]
    from hfgrow.train.side_by_side import Candidate, device_of, side_by_side

    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    where = device_of(device)
    found = named_models(models, revision, with_base, client, console)
    lines: list[str] = []
    document: dict[str, Any] = {}
    # The text first: what is wrong with it must not show after hours of benchmarks.
    if sources:
        own = None
        if tokenizer is not None:
            own = local_folder(locate(tokenizer, None, client, console), client, console)
        losses, length = side_by_side(
            [Candidate(one.name, one.folder, own or one.folder) for one in found],
            sources,
            max_tokens=max_tokens,
            sequence_length=sequence_length,
            device=where,
            client=client,
            progress=console,
        )
        lines += _text_lines(losses, length)
        document |= {"sequence_length": length, "texts": _texts(losses)}
    if wanted is not None:
        for one in found:
            check_folder(one, console)
        measured = []
        for one in found:
            console.say(f"Running {', '.join(wanted)} on {printable(one.name)}")
            results = run_tasks(
                one.folder,
                wanted,
                device=str(where),
                batch_size=batch_size,
                num_fewshot=num_fewshot,
                limit=limit,
                include=include_path,
                quiet=console.quiet,
                token=token,
            )
            measured.append((one.name, results, record(one, results, console)))
            if len(found) > 1:
                # Whatever becomes of the next model, this is not lost.
                for line in benchmark_lines([(one.name, results)]):
                    console.say(line)
        lines += [
            *([""] if lines else []),
            *benchmark_lines([(title, results) for title, results, _ in measured]),
        ]
        document["tasks"] = [
            {"model": title, "recorded": kept, "benchmarks": [one.to_json() for one in results]}
            for title, results, kept in measured
        ]
    console.result("\n".join(lines), document)


def _text_lines(losses: Sequence[Any], length: int) -> list[str]:
    """Return a table for each text; how many tokens are seen together decides the losses too."""
    lines: list[str] = []
    for i, first in enumerate(losses[0].texts):
        head = f"text {printable(first.loss.label)}, {length:,} tokens seen together"
        lines += [*([""] if lines else []), head, *_table(losses, i)]
    return lines


def _texts(losses: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            "text": first.loss.label,
            "models": [{"model": model.name, **_row(model, i)} for model in losses],
        }
        for i, first in enumerate(losses[0].texts)
    ]


def _source(word: str, text_column: str, split: str | None, name: str | None) -> Any:
    from dataclasses import replace

    source = text_source(word, text_column)
    if source.path is not None:
        if name is not None:
            raise UsageError("--name is of a dataset of the Hub; files have no configurations")
        return replace(source, split=split or "train")
    return replace(source, split=split or "validation", name=name)


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
