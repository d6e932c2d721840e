"""The program `hfgrow`: it registers the commands, and is the one place where errors end."""

import os
import signal
import sys
from typing import Annotated

import typer

from hfgrow import __version__
from hfgrow.errors import GrowthError

from . import grow, hub, inspect, proof
from .output import Console, redacted

app = typer.Typer(
    name="hfgrow",
    help="Grow Llama-style Hugging Face checkpoints: exact, proved, with lineage.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (grow, inspect, proof, hub):
    group.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hfgrow {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the program and end with the exit code of the error, if there is one."""
    signal.signal(signal.SIGTERM, _stop)
    # A command's own --json is not parsed yet when its options are wrong.
    console = Console(as_json="--json" in sys.argv)
    try:
        app()
    except GrowthError as error:
        _trace_if_asked()
        console.fail(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away; nothing is left to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print("Stopped; nothing was left behind.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        _trace_if_asked()
        name = f"{type(error).__name__}: {error}"
        bug = GrowthError(
            f"a bug in hfgrow: {name}", hint="run again with HF_DEBUG=1 and report the traceback"
        )
        console.fail(bug)
        sys.exit(bug.exit_code)


def _stop(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _trace_if_asked() -> None:
    if os.environ.get("HF_DEBUG", "") in ("1", "true", "True"):
        import traceback

        print(redacted(traceback.format_exc()), file=sys.stderr)
