"""What a command prints: the result on stdout, everything else on stderr, escaped."""

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from hfgrow.console import size
from hfgrow.errors import GrowthError, Speech, command, printable, redacted

_SMALL_NBYTES = 64 << 20
_PLAIN_INTERVAL_S = 30.0
_TRUE = ("1", "ON", "YES", "TRUE")


def _option(name: str, value: str) -> str:
    return f"--{name.replace('_', '-')}" + (f" {value}" if value else "")


def _growth(operator: str, given: Mapping[str, str]) -> str:
    """Return a growth as it is typed; a pattern of layers stands without its name."""
    pattern = shlex.quote(given["pattern"]) if "pattern" in given else None
    words = " ".join(filter(None, (operator, "MODEL", pattern)))
    return command(words, **{key: value for key, value in given.items() if key != "pattern"})


OPTIONS = Speech(_option, _growth)


class Console:
    """Where one command's words go.

    Attributes:
        as_json: Whether stdout gets exactly one JSON document.
        quiet: Whether stderr stays empty but for errors.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet or as_json

    def say(self, text: str) -> None:
        """Tell a line on stderr."""
        if not self.quiet:
            with suppress(OSError):
                print(redacted(OPTIONS.spell(text)), file=sys.stderr, flush=True)

    def stop(self, text: str, number: int) -> NoReturn:
        """Tell where work stands that a signal ended, and end with the code of the signal."""
        self.say(text)
        # Not `typer.Exit`: 130 is what typer makes of a Ctrl-C that nobody has told of yet.
        sys.exit(128 + number)

    def part(self, text: str) -> None:
        """Print a part of the result on stdout at once; with `as_json` nothing."""
        if not self.as_json:
            print(redacted(text), flush=True)

    def result(self, text: str, document: dict[str, Any]) -> None:
        """Print the result on stdout: text for people and scripts, or the JSON document."""
        shown = json.dumps(document, ensure_ascii=False) if self.as_json else text
        print(redacted(shown), flush=True)

    def fail(self, error: GrowthError) -> None:
        """Print an error: one line and a hint on stderr, or a JSON document on stdout."""
        error.speak(OPTIONS)
        if self.as_json:
            document: dict[str, object] = {"message": str(error)}
            document |= {"hint": error.hint, "exit_code": error.exit_code}
            document |= error.details
            print(redacted(json.dumps({"error": document}, ensure_ascii=False)), flush=True)
            return
        with suppress(OSError):
            print(f"Error: {redacted(printable(error, 2000))}", file=sys.stderr)
            if error.hint:
                print(f"Hint: {redacted(printable(error.hint, 2000))}", file=sys.stderr)

    def bytes(self, what: str, total: int) -> "Bar":
        """Start a progress bar on stderr; small amounts of bytes get none."""
        return Bar(what, total, shown=not self.quiet and total > _SMALL_NBYTES)


class Bar:
    """A progress bar by bytes: moving on a terminal, one plain line every 30 s elsewhere."""

    def __init__(self, what: str, total: int, *, shown: bool) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._next_s = time.monotonic() + _PLAIN_INTERVAL_S if shown else float("inf")
        self._bar: Any = None
        if shown and moving_bars():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=what, unit="B", unit_scale=True, delay=0.5, leave=False
            )

    def advance(self, nbytes: int) -> None:
        """Count."""
        self._done += nbytes
        if self._bar is not None:
            self._bar.update(nbytes)
        elif time.monotonic() >= self._next_s:
            self._next_s += _PLAIN_INTERVAL_S
            done = f"{size(self._done)} of {size(self._total)}"
            print(f"{self._what}: {done}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def moving_bars() -> bool:
    """Say whether stderr is a place for bars that move: a terminal where nobody said no."""
    disabled = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in _TRUE
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not disabled
