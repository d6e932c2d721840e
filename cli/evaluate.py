"""The command `hfgrow eval`: models side by side on text, and on benchmarks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hfgrow.console import amount, count, load
from hfgrow.data.sources import held_out_source
from hfgrow.errors import GrowthError, ModelError, UsageError, printable, require
from hfgrow.growth.lm_eval import PAPER_TASKS, run_tasks
from hfgrow.growth.loading import TRAINING
from hfgrow.growth.models import base_name, local_folder, locate, nearest_ancestor
from hfgrow.growth.publish import unchanged, write_benchmarks
from hfgrow.hub.client import HubClient
from hfgrow.lineage.reading import read_manifest
from hfgrow.lineage.records import Benchmark, recordable
from hfgrow.lineage.tables import text_table

from . import options
from .completion import aliases
from .terminal import Console

if TYPE_CHECKING:
    from hfgrow.train.evaluate import ModelLoss


_EXAMPLES = """\
hfgrow eval demo ./demo-stack-g2 --text demo --tokens 20K
hfgrow eval ./grown --with-base --text mine.txt
hfgrow eval ./grown --tasks arc_easy,piqa --limit 100"""
_TOKENS, _BATCH_SIZE = "1M", "8"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("eval", epilog=_EXAMPLES)(evaluate)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help=f"One or more. {options.MODEL_HELP}", autocompletion=aliases
        ),
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
    name: options.NameOption = None,
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

    Bits per byte compare across tokenizers, the other two do not. More: hfgrow docs evaluation
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
    sources = [held_out_source(word, text_column or "text", split, name) for word in text or ()]
    console = Console(as_json=json, quiet=quiet)
    load(console)
    from hfgrow.train.evaluate import Candidate, device_of, measured, prepared

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
            console.part("\n".join(_table(done, i, console.width)))


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


def _table(losses: Sequence["ModelLoss"], text: int, width: int | None) -> list[str]:
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
    if len(text_table(rows, left=[0], width=width)) > len(rows):
        # In parts, of which the first must have what compares.
        rows = [(name, last, *others) for name, *others, last in rows]
    return text_table(rows, left=[0], width=width)


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that a command was given.

    Attributes:
        name: How it is called.
        folder: Where it lies.
        is_given: Whether it was named as a folder, and may be written to: no base, no cache.
    """

    name: str
    folder: Path
    is_given: bool


def named_models(
    words: Sequence[str],
    revision: str | None,
    with_base: bool,
    client: HubClient,
    console: Console,
) -> list[NamedModel]:
    """Return models in their order, each once, with the base before each if that is wanted.

    Raises:
        UsageError: A name is none, or a revision is given for several.
        ModelError: Neither the base of one is to be found nor what that comes from.
        GrowthError: The Hub refuses or does not answer.
    """
    if revision is not None and len(words) > 1:
        raise UsageError(
            "--revision is of one model, and there are several", hint="write hf://org/name@rev"
        )
    found: dict[Path, NamedModel] = {}
    for word in words:
        ref = locate(word, revision, client, console)
        folder = local_folder(ref, client, console)
        manifest = read_manifest(folder) if with_base else None
        if manifest is not None:
            try:
                model, base = nearest_ancestor(folder, manifest, client, console)
            except ModelError as error:
                hint = "leave out --with-base, and name it as a MODEL"
                raise ModelError(str(error), hint=hint) from error
            if model != manifest.link.base:
                console.say(
                    f"Note: the base {printable(manifest.link.base.name)} of {printable(word)} is "
                    f"gone; {printable(model.name)}, which that comes from, stands for it"
                )
            named = NamedModel(printable(model.name), base, is_given=False)
            found.setdefault(base.resolve(), named)
        elif with_base:
            console.say(f"Note: {printable(word)} has no lineage, so it has no base")
        name = word if ref.path else ref.repo_id or base_name(ref)
        named = NamedModel(name, folder, is_given=ref.path is not None and ref.alias is None)
        found[folder.resolve()] = named
    return list(found.values())


PAPER = "paper"


@dataclass(frozen=True, slots=True)
class MeasuredTasks:
    """What tasks came to on a model.

    Attributes:
        name: How the model is called.
        found: The results.
        is_recorded: Whether all of them are in its lineage.
    """

    name: str
    found: tuple[Benchmark, ...]
    is_recorded: bool

    def to_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "model": self.name,
            "recorded": self.is_recorded,
            "benchmarks": [one.to_json() for one in self.found],
        }


def named_tasks(text: str) -> list[str]:
    """Return the tasks that a list says; `paper` stands for those of 2405.15319."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    tasks = [task for word in words for task in (PAPER_TASKS if word == PAPER else (word,))]
    if not tasks:
        raise UsageError("--tasks names none", hint="--tasks paper, or --tasks arc_easy,piqa")
    return list(dict.fromkeys(tasks))


def check_folder(model: NamedModel, console: Console) -> None:
    """Refuse weights that are not those of the lineage, before anything is measured of them."""
    manifest = read_manifest(model.folder) if model.is_given else None
    if manifest is not None:
        unchanged(model.folder, manifest, console)


def measured_tasks(
    models: Sequence[NamedModel],
    tasks: Sequence[str],
    run: Callable[[Path, Sequence[str]], tuple[Benchmark, ...]],
    console: Console,
) -> Iterator[MeasuredTasks]:
    """Run tasks on models; yield what each came to once it is recorded.

    Args:
        models: The models, whose weights are known to be those of their lineage.
        tasks: The names of the tasks.
        run: Runs them on the model of a folder.
        console: Told how it goes on.
    """
    for one in models:
        name = printable(one.name)
        console.say(f"Running {', '.join(tasks)} on {name}")
        found = run(one.folder, tasks)
        for result in found:
            console.say(f"{name}: {result.task} {result.metric} {result.value:.4f}")
        yield MeasuredTasks(one.name, found, _record(one, found, console))


def tasks_measured(
    results: Iterable[MeasuredTasks], console: Console, document: dict[str, Any]
) -> None:
    """Print results of tasks, also of some models where another one fails.

    Args:
        results: The results, measured as they are asked for.
        console: Where they are printed.
        document: Gets them as `tasks`.
    """
    done: list[MeasuredTasks] = []
    try:
        for one in results:
            done.append(one)
            document["tasks"] = [model.to_json() for model in done]
    finally:
        if done:
            if "texts" in document:
                console.part("")
            console.part("\n".join(_lines(done, console.width)))


def _record(model: NamedModel, found: Sequence[Benchmark], console: Console) -> bool:
    """Write results into the lineage and the card of a model; return whether all are there."""
    name = printable(model.name)
    manifest = read_manifest(model.folder) if model.is_given else None
    if manifest is None:
        console.say(f"Note: {name} is no folder of hfgrow's, so its results are only printed")
        return False
    taken = recordable(found, manifest.benchmarks)
    if len(taken) < len(found):
        tasks = dict.fromkeys(one.task for one in found if one not in taken)
        console.say(
            f"Note: {name} has results of all examples of {', '.join(tasks)}, which those of "
            "--limit do not replace: they are only printed"
        )
    if taken and not write_benchmarks(model.folder, taken, console):
        console.say(f"Note: README.md of {name} was edited and stays; hfgrow card makes it anew")
    return len(taken) == len(found)


def _lines(measured: Sequence[MeasuredTasks], width: int | None) -> list[str]:
    """Return all results as a table, a column for each model."""
    keys = dict.fromkeys((one.task, one.metric) for model in measured for one in model.found)
    names = (printable(model.name, 40) for model in measured)
    rows: list[tuple[str, ...]] = [("task", "metric", *names)]
    for task, metric in keys:
        cells = []
        for model in measured:
            one = next((b for b in model.found if (b.task, b.metric) == (task, metric)), None)
            error = "" if one is None or one.stderr is None else f" +- {one.stderr:.4f}"
            cells.append("-" if one is None else f"{one.value:.4f}{error}")
        rows.append((task, metric, *cells))
    return text_table(rows, left=[0], width=width)
