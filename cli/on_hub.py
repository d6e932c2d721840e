"""The two ways to the Hub and back: pull and push."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import count, size
from hfgrow.errors import ModelError, printable
from hfgrow.growth.models import pulled
from hfgrow.growth.publish import publish
from hfgrow.hub.client import HubClient

from . import options
from .help_pages import OUTPUT
from .terminal import Console, say_block

_PULL_EXAMPLES = """\
hfgrow pull SmolLM2-135M
hfgrow pull org/name --revision main --out name"""
_PUSH_EXAMPLES = """\
hfgrow push ./demo-stack-g2
hfgrow push ./demo-stack-g2 you/name --private"""


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("pull", epilog=_PULL_EXAMPLES)(pull)
    app.command("push", epilog=_PUSH_EXAMPLES)(push)


def pull(
    model: options.ModelArgument,
    out: Annotated[
        Path | None,
        options.out_option("Copy them into a folder.  [default: the cache of the Hub]"),
    ] = None,
    overwrite: options.OverwriteOption = False,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Download the files of a model that growing needs, checksums compared; print the folder."""
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    ref, folder = pulled(model, out, client, console, revision=revision, overwrite=overwrite)
    rows = [("commit", ref.revision)] if ref.revision else []
    typed = shlex.quote(printable(out or model, 200))
    following: str | None = f"hfgrow stack {typed} --g 2, or another of hfgrow operators"
    try:
        plan = read(LocalFolder(folder))
    except ModelError as error:
        following = None
        console.say(f"Note: it is here, and cannot be grown: {error}")
    else:
        what = f"{plan.num_hidden_layers} layers, {count(plan.num_parameters)} parameters"
        rows.insert(0, ("what", f"{what}, {size(plan.nbytes)}"))
    rows.append(("where", printable(folder, 200)))
    say_block(console, f"Here: {printable(ref.label, 100)}", rows, following)
    document = {"folder": str(folder), "repo": ref.repo_id, "revision": ref.revision}
    console.result(str(folder), document)


def push(
    folder: options.FolderArgument,
    repo: Annotated[
        str | None, typer.Argument(metavar="[REPO]", help="Target.  [default: YOU/NAME]")
    ] = None,
    private: options.PrivateOption = None,
    create_pr: options.CreatePrOption = False,
    exist_ok: options.ExistOkOption = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would go where; send nothing.", rich_help_panel=OUTPUT
        ),
    ] = False,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Push a grown model in one commit; a second push of the same is none.

    Weights whose sha256 was not recorded at growth are compared with the base first, where that
    is at hand; the card says so where it is not.
    """
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    pushed = publish(
        folder,
        repo,
        client,
        console,
        private=private,
        exist_ok=exist_ok,
        create_pr=create_pr,
        dry_run=dry_run,
    )
    name = printable(pushed.url.removeprefix(f"{client.endpoint}/"))
    done = "Would be pushed" if dry_run else "Pushed"
    if pushed.already:
        done = "Already there: every file is the same, nothing was pushed"
    rows = [
        ("where", f"{pushed.url} ({pushed.visibility})"),
        ("what", f"{len(pushed.files)} files, {size(sum(pushed.files.values()))}"),
        *([("commit", pushed.commit)] if pushed.commit else []),
    ]
    for note in pushed.notes:
        console.say(f"Note: {note}")
    if pushed.private is False and private is None and not pushed.already:
        console.say("Note: as public as its base; --private is for your eyes alone")
    say_block(console, done, rows, None if dry_run else f"hfgrow lineage {name}")
    console.result(
        pushed.pull_request or pushed.url,
        {
            "url": pushed.url,
            "private": pushed.private,
            "files": dict(pushed.files),
            "commit": pushed.commit or None,
            "already_pushed": pushed.already,
            "pull_request": pushed.pull_request,
            "notes": list(pushed.notes),
            "dry_run": dry_run,
        },
    )
