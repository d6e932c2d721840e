"""The program `hfgrow`: it registers the commands, and is the one place where errors end."""

import atexit
import errno
import gc
import os
import signal
import sys
from collections import Counter
from typing import Annotated, Any, NoReturn

import typer

from hfgrow import __version__
from hfgrow.console import open_streams
from hfgrow.errors import GrowthError, OutputError, UsageError, out_of_memory, printable, redacted

from .commands import FirstPage
from .help_pages import App, Group
from .terminal import Console, moving_bars

_INTERRUPTED = 130
_stopped_by: list[int] = []
# What typer raises for wrong options; it exports the class below it, not the class itself.
_OPTION_ERROR: Any = typer.BadParameter.__bases__[0]

app = App(
    name="hfgrow",
    cls=FirstPage,
    help="Grow Llama-style Hugging Face checkpoints: exact, proved, with lineage.",
)


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
    open_streams()
    # To look for garbage among all that torch and transformers are takes most of a second.
    atexit.register(gc.freeze)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Whoever ignores a signal for us, as nohup does, wants it ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    # The options are not parsed yet when they are wrong.
    quiet = not {"--json", "-q", "--quiet"}.isdisjoint(sys.argv)
    console = Console(as_json="--json" in sys.argv, quiet=quiet)
    if quiet or not moving_bars():
        # Read by huggingface_hub when it is imported, which happens later and not always.
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        _refuse_repeats(sys.argv[1:])
        code = app(prog_name="hfgrow", standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.exit(code)
    except GrowthError as error:
        if _stopped_by:
            # A library caught our exit and made an error of it.
            sys.exit(128 + _stopped_by[0])
        _end(error, console)
    except _OPTION_ERROR as error:
        message = error.format_message()
        if message.startswith("Usage:"):
            print(message, file=sys.stderr)
            sys.exit(UsageError.exit_code)
        _end(UsageError(message.rstrip("."), hint=_help_command(error)), console)
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):
            # The parser takes one for Ctrl-D at a prompt, and we ask nothing.
            _end(_bug(error.__cause__), console)
        # All is swept: another Ctrl-C while Python ends could only change the exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("Stopped.", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not _has_working_folder():
            _end(
                OutputError("the working folder does not exist any more", hint="cd to one"), console
            )
        if error.errno == errno.ENAMETOOLONG:
            _end(UsageError(f"a name is too long: {printable(error.filename, 60)}"), console)
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            _end(_bug(error), console)
        # Our output goes nowhere: its reader went away, or its disk is full. The work is done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.ENOSPC:
            print("Error: the result could not be written to stdout", file=sys.stderr)
        sys.exit(0 if error.errno == errno.EPIPE else OutputError.exit_code)
    except Exception as error:
        if isinstance(error, RuntimeError) and "home directory" in str(error):
            # What `Path.expanduser` says of ~somebody.
            _end(UsageError("a path begins with ~ and nobody has that home folder"), console)
        _end(_bug(error), console)


def _refuse_repeats(words: list[str]) -> None:
    """Refuse an option that is given twice: the parser would take the last without a word."""
    ours = words[: words.index("--")] if "--" in words else words
    options = Counter(word.partition("=")[0] for word in ours if word.startswith("--"))
    repeated = [option for option, times in options.items() if times > 1]
    if not repeated:
        return
    command: Any = typer.main.get_command(app)
    for word in (word for word in ours if word[:1] != "-"):
        if isinstance(command, Group):
            command = command.get_command(typer.Context(command), word) or command
    for parameter in command.params:
        if not parameter.multiple:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option in repeated:
                    raise UsageError(f"{option} is given twice", hint="give it once")


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _bug(error: Exception) -> GrowthError:
    return out_of_memory(error) or GrowthError(
        f"a bug in hfgrow: {type(error).__name__}: {error}",
        hint="run again with HF_DEBUG=1 and report the traceback",
    )


def _end(error: GrowthError, console: Console) -> NoReturn:
    if os.environ.get("HF_DEBUG", "").upper() in ("1", "ON", "YES", "TRUE"):
        import traceback

        print(redacted(traceback.format_exc()), file=sys.stderr)
    console.fail(error)
    sys.exit(error.exit_code)


def _help_command(error: Any) -> str:
    path = error.ctx.command_path if error.ctx else "hfgrow"
    return f"{path} --help"


def _stop(number: int, frame: object) -> None:
    _stopped_by.append(number)
    sys.exit(128 + number)
