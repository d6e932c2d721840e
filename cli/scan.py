"""The command `hfgrow scan`: which block of layers to repeat, by the loss with it run twice."""

import shlex
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from hfgrow.console import amount
from hfgrow.errors import command, printable, require
from hfgrow.growth.behaviour import TRANSFORMERS
from hfgrow.growth.models import base_name, local_folder, locate
from hfgrow.growth.scan import DEFAULT_MAX_BLOCK, DEFAULT_TOKENS, Scan, ScannedBlock, draw_scan
from hfgrow.growth.scan import scan as scan_blocks
from hfgrow.hub.client import HubClient
from hfgrow.lineage.canvas import check_picture, format_of, write_picture
from hfgrow.lineage.tables import text_table

from . import options
from .proof import probe_text_of
from .terminal import Console, broken

_EXAMPLES = """\
hfgrow scan demo
hfgrow scan SmolLM2-135M --max-block 4 --plot scan.png
hfgrow scan demo --text mine.txt --tokens 4K --damped"""
_FEW_TOKENS = 256
_NUM_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("scan", epilog=_EXAMPLES)(scan)


def scan(
    model: options.ModelArgument,
    max_block: Annotated[
        int, typer.Option("--max-block", metavar="B", min=1, help="The most layers of a block.")
    ] = DEFAULT_MAX_BLOCK,
    damped: Annotated[
        bool,
        typer.Option("--damped", help="Let each of both passes through a block add half."),
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Text to measure on, UTF-8, or `demo`.  [default: a page]",
        ),
    ] = None,
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="N", help="The most tokens of the text.")
    ] = str(DEFAULT_TOKENS),
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw a heat map: FILE.png or FILE.svg."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing picture.")
    ] = False,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Run every short block of layers twice in memory, and say which one to repeat.

    Nothing is written. The loss is that of the model which `hfgrow partial` grows by the pattern,
    damped with --damp-repeats 1.
    More: hfgrow docs operators
    """
    require("hfgrow scan", *TRANSFORMERS, "tokenizers")
    console = Console(as_json=json, quiet=quiet)
    kind = None if plot is None else format_of(plot)
    if plot is not None:
        check_picture(plot, overwrite=overwrite)
        require("--plot", "matplotlib", extra="plots")
    num_tokens, words = int(amount(tokens, "--tokens")), probe_text_of(text)
    client = HubClient(token=token)
    ref = locate(model, revision, client, console)
    name = ref.repo_id or base_name(ref)
    found = scan_blocks(
        local_folder(ref, client, console),
        console,
        max_block=max_block,
        damped=damped,
        text=words,
        tokens=num_tokens,
    )
    document = {"model": name, **found.to_json()}
    if plot is not None and kind is not None:
        write_picture(plot, draw_scan(found, name, kind))
        document["plot"] = str(plot)
        console.say(f"Drawn: {printable(plot, 200)}")
    console.result("\n".join(_lines(found, name, console.width)), document)
    if found.num_tokens < _FEW_TOKENS:
        console.say(f"Note: {found.num_tokens} tokens say little of a block")
    if found.blocks[0].loss >= found.base_loss:
        console.say("Note: no block lowers the loss; what training makes of one is another matter")
    pattern = shlex.quote(found.blocks[0].pattern)
    shown = shlex.quote(printable(model, 200))
    # What was measured: each of the two passes adds half.
    more = {"damp_repeats": 1 if damped else None, "revision": revision}
    console.say(f"Next: {command(f'partial {shown} {pattern}', **more)}")


def _lines(found: Scan, name: str, width: int | None) -> list[str]:
    how = ", each pass halved" if found.damped else ""
    head = (
        f"{printable(name)}: loss {found.base_loss:.4f} on {found.num_tokens} tokens of "
        f"{found.text}; a block run twice{how}"
    )
    counted = "layers are counted from 0; a pattern of hfgrow partial, as its paper does, from 1"
    return [
        *broken([head, counted], width, behind=2),
        "",
        *_table("best blocks", found.blocks[:_NUM_SHOWN], found, width),
        "",
        *_table("best of each size", found.best_by_size, found, width),
    ]


def _table(
    title: str,
    blocks: tuple[ScannedBlock, ...] | list[ScannedBlock],
    found: Scan,
    width: int | None,
) -> list[str]:
    rows = [("layers", "repeated", "loss", "change", "pattern")]
    for block in blocks:
        known = isfinite(block.loss)
        layers = str(block.start)
        rows.append(
            (
                layers if block.num_layers == 1 else f"{block.start}-{block.stop - 1}",
                str(block.num_layers),
                f"{block.loss:.4f}" if known else "not finite",
                f"{block.loss - found.base_loss:+.4f}" if known else "-",
                block.pattern,
            )
        )
    return [title, *text_table(rows, left=[0, 4], width=width)]
