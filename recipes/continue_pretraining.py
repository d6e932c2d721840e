"""Continued pretraining with Accelerate: grow and train a model as a recipe says.

    hfgrow train RECIPE.yaml                                       # starts this
    accelerate launch --num_processes 1 continue_pretraining.py RECIPE.yaml
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 \
        continue_pretraining.py RECIPE.yaml --set world.processes=2

The work is in `hfgrow.train`; this file reads the command line, finds the base, and says how it
ended.
"""

import argparse
import atexit
import gc
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from hfgrow.console import LOADING, Bars, Silent, load, open_streams, waiting
from hfgrow.errors import PYTHON, GrowthError, Speech, option, out_of_memory
from hfgrow.train.processes import STATUS_VARIABLE, StoppedError, end_with_parent
from hfgrow.train.recipe.speech import keys

_OPTIONS = Speech(option, PYTHON.growth)
# How long a process that failed waits for the first one to say so.
_PATIENCE_S = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run a recipe; return the exit code."""
    parser = argparse.ArgumentParser(prog="continue_pretraining.py", description=__doc__)
    parser.add_argument("recipe", help="a file, or the name of a recipe that travels with hfgrow")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--cpu", action="store_true", help="leave accelerators alone")
    parser.add_argument("--allow-world-size-change", action="store_true")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    given = parser.parse_args(arguments)

    if STATUS_VARIABLE in os.environ or "LOCAL_RANK" in os.environ:
        end_with_parent()
    told = Silent() if given.quiet or os.environ.get("RANK", "0") != "0" else Bars()
    # Only now: it takes seconds to import torch.
    with waiting(told, LOADING):
        load(Silent())
        from hfgrow.train.recipe.recipe import load_recipe
        from hfgrow.train.run import Job, run_recipe

    try:
        job = Job(
            recipe=load_recipe(given.recipe, given.overrides),
            resume=given.resume,
            on_cpu=given.cpu,
            allow_world_change=given.allow_world_size_change,
            quiet=given.quiet,
            front=_OPTIONS,
        )
        result = run_recipe(job)
    except StoppedError as stop:
        return _end({"stopped": stop.number, "message": str(stop)}, 128 + stop.number, str(stop))
    except GrowthError as error:
        return _fail(error)
    except Exception as error:
        if (spent := out_of_memory(error)) is not None:
            return _fail(spent)
        traceback.print_exc()
        return _fail(
            GrowthError(
                f"a bug in hfgrow: {type(error).__name__}: {error}",
                hint="report the traceback above",
            )
        )
    return _end({"result": result}, 0, str(result["folder"]))


def _fail(error: GrowthError) -> int:
    details = dict(error.details)
    flags = {flag: bool(details.pop(flag, False)) for flag in ("is_shared", "is_lost")}
    error.speak(keys(_OPTIONS))
    message, hint = str(error), error.hint
    told = {"name": type(error).__name__, "message": message, "hint": hint}
    said = f"Error: {message}" + (f"\nHint: {hint}" if hint else "")
    return _end({"error": {**told, "details": details}, **flags}, error.exit_code, said)


def _end(status: dict[str, object], code: int, said: str) -> int:
    """Say how the run ended: to whoever launched it if somebody did, else in words.

    The first process of a machine speaks for all of them. Where it does not, since it waits for one
    that failed alone, that one speaks itself, and its exit code ends the others.
    """
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    path = os.environ.get(STATUS_VARIABLE)
    if not path:
        if os.environ.get("RANK", "0") == "0" or (code and not status.get("is_shared")):
            print(said, file=sys.stderr if code else sys.stdout, flush=True)
        return code
    file = Path(path)
    if not is_first and (not code or _appears(file)):
        return 0
    try:
        with suppress(FileExistsError), file.open("x", encoding="utf-8") as opened:
            json.dump(status, opened, default=str)
    except OSError:
        # Such as a disk that is full, which the run may have ended by: the launcher sees the code.
        print(said, file=sys.stderr if code else sys.stdout, flush=True)
        return code or 1
    # A launcher that is told has no use for the traceback of a process that failed in order, with
    # all others; the code of one that failed alone, or that lost another, makes it end the rest.
    failed_alone = "error" in status and not status["is_shared"]
    return 0 if is_first and not failed_alone else code


def _appears(file: Path) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return file.exists()


if __name__ == "__main__":
    open_streams()
    # As the program does it, for the same seconds.
    atexit.register(gc.freeze)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Until the run listens there is nothing to save, and nothing that a traceback would tell.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Threads of gloo that are still about would abort an interpreter that ends in order.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
