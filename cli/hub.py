"""The two ends of the road, alone: pull and push."""

from typing import Annotated

import typer

from hfgrow.growth.models import local_folder, locate
from hfgrow.growth.publish import publish
from hfgrow.hub.client import HubClient

from . import options
from .output import Console


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    panel = "Hub"
    app.command("pull", rich_help_panel=panel)(pull)
    app.command("push", rich_help_panel=panel)(push)


def pull(
    model: options.ModelArgument,
    revision: options.RevisionOption = None,
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Download the files of a model that growing needs, checksums compared; print the folder."""
    console = Console(as_json=json, quiet=quiet)
    client = HubClient(token=token)
    ref = locate(model, revision, client, console)
    folder = local_folder(ref, client, console)
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
    token: options.TokenOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Push a grown model in one commit; a second push of the same is none."""
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
    )
    if pushed.already:
        console.say("Already there: every file is the same, nothing was pushed")
    for note in pushed.notes:
        console.say(f"Note: {note}")
    console.result(
        pushed.pull_request or pushed.url,
        {
            "url": pushed.url,
            "commit": pushed.commit,
            "already_pushed": pushed.already,
            "pull_request": pushed.pull_request,
        },
    )
