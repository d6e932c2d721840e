"""The command `hfgrow extend-hf`: the Hub's own command line runs hfgrow as `hf grow`."""

import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hfgrow.checkpoint.staging import translated
from hfgrow.errors import GrowthError, OutputError, UsageError, printable

from . import options
from .terminal import Console

_EXAMPLES = """\
hfgrow extend-hf
hf grow stack demo --g 2"""
_NAME = "grow"
# GitHub has no account whose name begins with a hyphen: `hf extensions update` finds none there.
_OWNER = "-local"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("extend-hf", epilog=_EXAMPLES)(extend_hf)


def extend_hf(
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an extension of this name.")
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Let the command hf run hfgrow: hf grow stack demo --g 2.

    It is entered among the extensions of hf for this user; nothing is downloaded.
    """
    console = Console(as_json=json, quiet=quiet)
    try:
        from huggingface_hub.cli.extensions import EXTENSIONS_ROOT, ExtensionManifest
    except ImportError:
        raise UsageError(
            "the huggingface_hub that is installed has no extensions",
            hint="pip install -U huggingface_hub",
        ) from None
    program = Path(sysconfig.get_path("scripts")) / f"hf-{_NAME}"
    if not program.is_file():
        raise GrowthError(f"there is no script {printable(program, 200)}: hfgrow is not installed")
    folder = EXTENSIONS_ROOT.expanduser() / f"hf-{_NAME}"
    if folder.exists() and not overwrite:
        try:
            known = ExtensionManifest.load(folder).repo_id
        except Exception:  # Whatever is damaged there, it is not ours.
            known = ""
        if known != f"{_OWNER}/hf-{_NAME}":
            raise OutputError(
                f"hf has an extension {_NAME} already, {printable(known or folder, 200)}",
                hint="add --overwrite",
            )
    manifest = ExtensionManifest(
        owner=_OWNER,
        repo=f"hf-{_NAME}",
        repo_id=f"{_OWNER}/hf-{_NAME}",
        short_name=_NAME,
        executable_path=str(program),
        type="python",
        installed_at=datetime.now(UTC),
        description="Grow language models, prove it, train on.",
    )
    with translated(printable(folder, 200)):
        manifest.save(folder)
    console.say(f"hf {_NAME} runs {printable(program, 200)}, until hf extensions remove {_NAME}")
    console.say("Next: hf grow stack demo --g 2")
    console.result(str(folder), {"folder": str(folder), "program": str(program)})
