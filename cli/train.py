"""The commands `hfgrow train`, which launches a run by a recipe, and `hfgrow data`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.console import size
from hfgrow.data.sources import named_source
from hfgrow.errors import UsageError, printable
from hfgrow.growth.loading import TRAINING, require
from hfgrow.growth.models import local_folder, locate
from hfgrow.hub.client import HubClient

from . import options
from .output import Console


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("train", rich_help_panel="Train", context_settings={"allow_extra_args": True})(
        train
    )


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A YAML file, or a recipe of hfgrow's, such as demo or schedule-free.",
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Put a value into the recipe; repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")
    ] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave accelerators alone.")] = False,
    num_processes: Annotated[
        int | None,
        typer.Option("--num-processes", metavar="N", min=1, help="world.processes of the recipe."),
    ] = None,
    allow_world_size_change: Annotated[
        bool,
        typer.Option("--allow-world-size-change", help="Resume with another number of processes."),
    ] = False,
    dry_run: options.DryRunOption = False,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Grow and train a model as a recipe says; print its folder.

    What stands behind -- goes to accelerate launch, such as -- --num_machines 2.
    """
    require("hfgrow train", "pydantic", *TRAINING)
    from hfgrow.train.dry_run import dry_run_lines, recipe_lines
    from hfgrow.train.processes import check_launch_options, launch
    from hfgrow.train.recipe.recipe import load_recipe
    from hfgrow.train.recipe.speech import in_keys

    console = Console(as_json=json, quiet=quiet)
    extra = _behind_dashes(context.args)
    check_launch_options(extra)
    overrides = list(set_ or ())
    if num_processes is not None:
        overrides.append(f"world.processes={num_processes}")
    loaded = load_recipe(recipe, overrides)
    if dry_run:
        with in_keys():
            for line in dry_run_lines(loaded, HubClient(token=token), console, resume=resume):
                console.say(line)
        console.result(loaded.to_yaml().rstrip(), {"recipe": loaded.model_dump(mode="json")})
        return
    for line in recipe_lines(loaded):
        console.say(line)
    arguments = [recipe]
    for override in overrides:
        arguments += ["--set", override]
    flags = {
        "--resume": resume,
        "--cpu": cpu,
        "--allow-world-size-change": allow_world_size_change,
        "--quiet": console.quiet,
    }
    arguments += [flag for flag, wanted in flags.items() if wanted]
    outcome = launch(
        arguments,
        num_processes=loaded.world.processes,
        on_cpu=cpu,
        extra=extra,
        token=token,
    )
    if "stopped" in outcome:
        words = ["hfgrow", "train", recipe, *(["--cpu"] if cpu else [])]
        for override in overrides:
            words += ["--set", override]
        again = shlex.join([*words, "--resume", *(["--", *extra] if extra else [])])
        if json:
            console.result("", {**outcome, "resume": again})
        console.stop(f"{outcome['message']}. Go on with: {again}", int(outcome["stopped"]))
    result = outcome["result"]
    console.result(str(result["folder"]), result)


def _behind_dashes(words: list[str]) -> list[str]:
    """Return what goes to accelerate launch: what the parser left over, all of it behind `--`.

    Raises:
        UsageError: Something stands before it, which accelerate would take for the script.
    """
    behind = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    stray = words[: max(0, len(words) - len(behind))] or [
        word for word in words[:1] if not word.startswith("-")
    ]
    if stray:
        raise UsageError(
            f"{printable(stray[0])} is one word too many; expected a single RECIPE, and behind -- "
            "options of accelerate launch",
            hint="hfgrow train --help",
        )
    return words


_REQUIRED = ("numpy", "tokenizers")


def register_data(app: typer.Typer) -> None:
    """Add the group of commands to the program."""
    data = typer.Typer(
        name="data", help="Tokenise text for training.", no_args_is_help=True, rich_markup_mode=None
    )
    data.command("prepare")(prepare)
    data.command("check")(check)
    app.add_typer(data, rich_help_panel="Train")


def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files or folders of text, JSON, CSV, parquet or arrow, or datasets of the Hub as "
            "org/name; "
            "`demo` is the documentation that Python carries.",
        ),
    ],
    tokenizer: Annotated[
        str,
        typer.Option("--tokenizer", metavar="MODEL", help="The model whose tokenizer is used."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    text_column: Annotated[
        str, typer.Option("--text-column", help="The column of the text.")
    ] = "text",
    split: Annotated[
        str, typer.Option("--split", help="The split of datasets on the Hub.")
    ] = "train",
    name: options.NameOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace tokens of other text.")
    ] = False,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Tokenise text into memory-mapped shards with an index; print the folder."""
    require("hfgrow data prepare", *_REQUIRED)
    from hfgrow.checkpoint.config import read_config
    from hfgrow.checkpoint.files import LocalFolder
    from hfgrow.data.prepare import prepare as prepare_tokens
    from hfgrow.data.text_tokenizer import open_tokenizer

    texts = [named_source(text, text_column, split, name) for text in sources]
    for text in texts:
        if text.part != (0, 100):
            raise UsageError(
                f"--split {printable(split)}: tokens are prepared whole, and read in part",
                hint=f"--split {text.whole_split} here, and split: {printable(split)} where a "
                "recipe names the text",
            )
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    ref = locate(tokenizer, None, client, console)
    folder = local_folder(ref, client, console)
    config, _, _ = read_config(LocalFolder(folder))
    files = prepare_tokens(
        texts,
        open_tokenizer(folder),
        out,
        vocab_size=int(config["vocab_size"]),
        overwrite=overwrite,
        # Asked for as the way out of damage, which may lie where only a hash finds it.
        verify=overwrite,
        client=client,
        progress=console,
    )
    console.say(f"{_summary(files)}, {size(_nbytes(files))} in {printable(out, 200)}")
    console.result(str(out), _document(out, files))


def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of prepared tokens.")],
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Compare every file of prepared tokens with the sha256 in its index."""
    require("hfgrow data check", *_REQUIRED)
    from hfgrow.data.token_folder import TokenFiles

    console = Console(as_json=json, quiet=quiet)
    files = TokenFiles(folder)
    files.verify()
    console.result(f"{_summary(files)}, every file as it was prepared", _document(folder, files))


def _document(folder: Path, files: Any) -> dict[str, object]:
    return {
        "folder": str(folder),
        "num_tokens": files.index.num_tokens,
        "num_documents": files.index.num_documents,
        "nbytes": _nbytes(files),
    }


def _summary(files: Any) -> str:
    documents = files.index.num_documents
    plural = "" if documents == 1 else "s"
    return f"{files.index.num_tokens:,} tokens in {documents:,} document{plural}"


def _nbytes(files: Any) -> int:
    return int(files.index.num_tokens * files.index.itemsize)
