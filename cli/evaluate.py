"""The command `hfgrow eval`: models side by side on text, and on benchmarks."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.console import amount
from hfgrow.errors import GrowthError, UsageError, printable
from hfgrow.growth.lm_eval import run_tasks
from hfgrow.growth.loading import TRAINING, require
from hfgrow.growth.models import local_folder, locate
from hfgrow.hub.client import HubClient

from . import options
from .data import text_source
from .named_models import named_models
from .output import Console
from .tasks import check_folder, measured_tasks, named_tasks, tasks_measured
from .text_losses import texts_measured

_TOKENS, _BATCH_SIZE = "1M", "8"


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
        str | None, typer.Option("--text-column", help="The column of the text.  [default: text]")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens",
            metavar="N",
            help="The most tokens of a text, by the first model's count.  [default: 1M]",
        ),
    ] = None,
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
        str | None,
        typer.Option("--batch-size", help="Sequences at once of --tasks, or auto.  [default: 8]"),
    ] = None,
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
    of_text = {
        "--split": split,
        "--name": name,
        "--text-column": text_column,
        "--tokens": tokens,
        "--sequence-length": sequence_length,
        "--tokenizer": tokenizer,
    }
    of_tasks = {
        "--num-fewshot": num_fewshot,
        "--limit": limit,
        "--batch-size": batch_size,
        "--include-path": include_path,
    }
    _refuse_idle("--text", text, of_text)
    _refuse_idle("--tasks", tasks, of_tasks)
    wanted = [] if tasks is None else named_tasks(tasks)
    if wanted:
        require("--tasks", "lm_eval", extra="eval")
    if include_path is not None and not include_path.is_dir():
        raise UsageError(f"there is no folder {printable(include_path, 200)}")
    max_tokens = int(amount(tokens or _TOKENS, "--tokens"))
    sources = [_source(word, text_column or "text", split, name) for word in text or ()]
    from hfgrow.train.evaluate import Candidate, device_of, measured, prepared

    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    where = device_of(device)
    found = named_models(models, revision, with_base, client, console)
    own = None
    if tokenizer is not None:
        own = local_folder(locate(tokenizer, None, client, console), client, console)
    candidates = [Candidate(one.name, one.folder, own or one.folder) for one in found]
    run = partial(
        run_tasks,
        device=str(where),
        batch_size=batch_size or _BATCH_SIZE,
        num_fewshot=num_fewshot,
        limit=limit,
        include=include_path,
        quiet=console.quiet,
        token=token,
    )
    document: dict[str, Any] = {}
    try:
        for one in found if wanted else ():
            check_folder(one, console)
        # The text first: what is wrong with it must not show after hours of benchmarks.
        if sources:
            with prepared(
                candidates,
                sources,
                max_tokens=max_tokens,
                sequence_length=sequence_length,
                client=client,
                progress=console,
            ) as texts:
                losses = measured(texts, where, console)
                texts_measured(losses, texts.sequence_length, console, document)
        if wanted:
            tasks_measured(measured_tasks(found, wanted, run, console), console, document)
    except GrowthError as error:
        error.details |= document
        raise
    if json:
        console.result("", document)


def _refuse_idle(what: str, given: object, options_of: Mapping[str, object]) -> None:
    """Refuse options of something that is not asked for."""
    idle = [name for name, value in options_of.items() if value is not None]
    if idle and not given:
        raise UsageError(f"{idle[0]} is of {what}, and there is none", hint=f"leave out {idle[0]}")


def _source(word: str, text_column: str, split: str | None, name: str | None) -> Any:
    from dataclasses import replace

    source = text_source(word, text_column)
    if source.path is not None:
        if name is not None:
            raise UsageError("--name is of a dataset of the Hub; files have no configurations")
        return replace(source, split=split or "train")
    return replace(source, split=split or "validation", name=name)
