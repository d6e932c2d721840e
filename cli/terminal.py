"""What a command prints: the result on stdout, everything else on stderr, escaped."""

import difflib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from hfgrow.console import (
    ProgressBar,
    SaidBar,
    Silent,
    duration,
    for_terminal,
    terminal_width,
    wrapped,
)
from hfgrow.errors import GrowthError, Speech, command, option, printable, redacted

# What is over sooner shows no bar.
_MOMENT_S = 0.5
# Of a shorter time tenths are told.
_LEAST_S, _SHORT_S = 0.1, 10.0
# The first words of lines, and how a terminal shows them: red, yellow, bold.
_COLOURS = {"Error": "1;31", "Note": "33", "Hint": "1", "Next": "1;32"}
_TRUE = ("1", "ON", "YES", "TRUE")


def _growth(operator: str, given: Mapping[str, str]) -> str:
    """Return a growth as it is typed; a pattern of layers stands without its name."""
    pattern = shlex.quote(given["pattern"]) if "pattern" in given else None
    words = " ".join(filter(None, (operator, "MODEL", pattern)))
    return command(words, **{key: value for key, value in given.items() if key != "pattern"})


OPTIONS = Speech(option, _growth)


class Console:
    """Where one command's words go.

    Attributes:
        as_json: Whether stdout gets exactly one JSON document.
        quiet: Whether stderr stays empty but for errors.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet or as_json
        self._said: set[str] = set()
        self._begun_s = time.monotonic()

    @property
    def took(self) -> str:
        """How long the command has run."""
        seconds = time.monotonic() - self._begun_s
        if seconds < _LEAST_S:
            return f"less than {_LEAST_S} s"
        return f"{seconds:.1f} s" if seconds < _SHORT_S else duration(seconds)

    @property
    def width(self) -> int | None:
        """The columns that a result has; None where no person reads it."""
        return terminal_width() if sys.stdout.isatty() and not self.as_json else None

    def say(self, text: str) -> None:
        """Tell a line on stderr, once: what a name stands for is found out several times."""
        line = f"{text}"
        if not self.quiet and line not in self._said:
            self._said.add(line)
            with suppress(OSError):
                text = _shown(redacted(OPTIONS.spell(line)))
                print(f"{_over_bars()}{text}", file=sys.stderr, flush=True)

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
            for line in error_lines(error):
                print(f"{_over_bars()}{_shown(line)}", file=sys.stderr)

    def bytes(self, what: str, total: int) -> ProgressBar:
        """Start a progress bar on stderr: moving on a terminal, elsewhere a line now and then."""
        if self.quiet:
            return Silent()
        return _MovingBar(what, total) if moving_bars() else SaidBar(self, what, total)


class _MovingBar:
    """A progress bar on a terminal; what is over in a moment shows none, however large it is."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._begins_s = time.monotonic() + _MOMENT_S
        self._bar: Any = None

    def advance(self, nbytes: int) -> None:
        """Count."""
        self._done += nbytes
        if self._bar is not None:
            self._bar.update(nbytes)
        elif time.monotonic() >= self._begins_s:
            from tqdm import tqdm

            total, done = self._total, self._done
            self._bar = tqdm(
                total=total, initial=done, desc=self._what, unit="B", unit_scale=True, leave=False
            )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def error_lines(error: GrowthError) -> list[str]:
    """Return an error as it is printed, which speaks of options already, and its hint."""
    hint = [f"Hint: {redacted(printable(error.hint, 2000))}"] if error.hint else []
    return [f"Error: {redacted(printable(error, 2000))}", *hint]


def paragraphs(rows: Iterable[tuple[str, str]], width: int | None, *, indent: int = 0) -> list[str]:
    """Return names with a text beside each, broken between words where it is too wide.

    Args:
        rows: The names and texts.
        width: The columns there are; None breaks nothing.
        indent: Blanks before each line.
    """
    listed = list(rows)
    first = indent + max((len(name) for name, _ in listed), default=0) + 2
    lines = []
    for name, text in listed:
        begin = f"{'':{indent}}{name}"
        lines += wrapped(f"{begin:{first}}{text}", width, behind=first)
    return lines


def say_block(
    console: Console, title: str, rows: Iterable[tuple[str, str]], following: str | None = None
) -> None:
    """Say on stderr what a command has made: what, where, how long it took, and what to type next.

    Args:
        console: Where it is said.
        title: The first line.
        rows: What stands below it; how long it took is the last of them.
        following: The next command, if there is one.
    """
    width = terminal_width() if sys.stderr.isatty() else None
    console.say(title)
    for line in paragraphs([*rows, ("took", console.took)], width, indent=2):
        console.say(line)
    if following is not None:
        console.say(f"Next: {following}")


def broken(lines: Iterable[str], width: int | None, *, behind: int) -> list[str]:
    """Return lines broken between words where they are too wide, what goes on being indented."""
    return [part for line in lines for part in wrapped(line, width, behind=behind)]


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint that names what is spelled most like a name; empty where nothing is."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {found[0]}?" if found else ""


def _shown(text: str) -> str:
    """Return a line as stderr takes it."""
    return _coloured(for_terminal(text, sys.stderr))


def _coloured(text: str) -> str:
    """Return a line with its first word in colour where a person looks at a terminal."""
    word, colon, rest = text.partition(":")
    code = _COLOURS.get(word)
    if not colon or code is None or not _takes_colour():
        return text
    return f"\x1b[{code}m{word}:\x1b[0m{rest}"


def _takes_colour() -> bool:
    """Say whether stderr shows colours and nobody has said no: https://no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stderr.isatty() and not plain


def _over_bars() -> str:
    """Return what takes away bars that stand where a line is to come, ours and those of the Hub."""
    return "\r\x1b[J" if moving_bars() else ""


def moving_bars() -> bool:
    """Say whether stderr is a place for bars that move: a terminal where nobody said no."""
    disabled = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in _TRUE
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not disabled
