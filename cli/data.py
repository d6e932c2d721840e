"""The commands `hfgrow data`: text tokenised for training, and checked."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.checkpoint.read import read
from hfgrow.console import load, size
from hfgrow.data.sources import named_source, text_files_of
from hfgrow.errors import UsageError, printable, require
from hfgrow.growth.models import local_folder, locate
from hfgrow.hub.client import HubClient

from . import options
from .help_pages import App, Group
from .terminal import Console, say_block

_PREPARE_EXAMPLES = """\
hfgrow data prepare text/*.jsonl --tokenizer SmolLM2-135M --out tokens
# and in a recipe:  data: {train: [{path: tokens}], ...}"""
_CHECK_EXAMPLES = "hfgrow data check tokens"
_EXAMPLES = """\
hfgrow data prepare demo --tokenizer demo --out tokens
hfgrow data check tokens"""
_REQUIRED = ("numpy", "tokenizers")


def register(app: typer.Typer) -> None:
    """Add the group of commands to the program."""
    data = App(name="data", cls=Group, help="Tokenise text for training.", epilog=_EXAMPLES)
    data.command("prepare", epilog=_PREPARE_EXAMPLES)(prepare)
    data.command("check", epilog=_CHECK_EXAMPLES)(check)
    app.add_typer(data)


def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files or folders of text, JSON, CSV, parquet or arrow, or datasets of the Hub as "
            "org/name; `demo` is the documentation that Python carries. Tokens of others are "
            "copied: a Megatron .idx, a datatrove .ds, `--text-column input_ids`.",
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
    from hfgrow.checkpoint.files import LocalFolder
    from hfgrow.data.prepare import prepare as prepare_tokens
    from hfgrow.data.text_tokenizer import open_tokenizer

    texts = [named_source(text, text_column, split, name) for text in sources]
    for text in texts:
        text_files_of(text)
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
    vocab_size = int(read(LocalFolder(folder)).settings["vocab_size"])
    load(console, "torch", "transformers.models.auto.tokenization_auto")
    files = prepare_tokens(
        texts,
        open_tokenizer(folder),
        out,
        vocab_size=vocab_size,
        overwrite=overwrite,
        # Asked for as the way out of damage, which may lie where only a hash finds it.
        verify=overwrite,
        client=client,
        progress=console,
    )
    shown = printable(out, 200)
    rows = [
        ("what", f"{_summary(files)}, {size(_nbytes(files))}"),
        ("where", shown),
        ("in a recipe", f"data: {{train: [{{path: {shown}}}], ...}}, with this tokenizer"),
    ]
    typed = shlex.quote(shown)
    say_block(
        console,
        "Tokenised",
        rows,
        f"hfgrow train RECIPE --set data.train.0.path={typed}, or hfgrow data check {typed}",
    )
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
