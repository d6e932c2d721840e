"""What is said while work goes on: to whom, how far it is, in what lines, numbers and streams.

Who is told and how far something is (`Progress` and its bars), lines broken for a terminal, numbers
as they are said and typed, and streams that take any text.
"""

import io
import math
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Protocol, TextIO

from hfgrow.errors import Text, UsageError, printable, redacted


class ProgressBar(Protocol):
    """Counts bytes until it is closed."""

    def advance(self, nbytes: int) -> None:
        """Count."""
        ...

    def close(self) -> None:
        """Stop counting."""
        ...


class Progress(Protocol):
    """Takes single lines, and starts bars."""

    def say(self, text: str) -> None:
        """Tell one line, such as what a name was resolved to."""
        ...

    def bytes(self, what: str, total: int) -> ProgressBar:
        """Start to count bytes."""
        ...


class Silent:
    """Tells nobody anything; a bar of its own too."""

    def say(self, text: str) -> None:
        """Drop a line."""

    def bytes(self, what: str, total: int) -> "Silent":
        """Start to count nothing."""
        return self

    def advance(self, nbytes: int) -> None:
        """Drop a count."""

    def close(self) -> None:
        """Stop counting nothing."""


class Bars:
    """Shows lines on stderr, and bars of tqdm: moving ones in a notebook and on a terminal."""

    def say(self, text: str) -> None:
        """Show a line."""
        print(redacted(str(Text(text))), file=sys.stderr, flush=True)

    def bytes(self, what: str, total: int) -> ProgressBar:
        """Start a bar of bytes."""
        from tqdm.auto import tqdm

        return _Bar(tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False))


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, nbytes: int) -> None:
        self._bar.update(nbytes)

    def close(self) -> None:
        self._bar.close()


def usual_progress() -> Progress:
    """Return who is told where nobody is named: bars in a notebook, nobody in a script."""
    shell = sys.modules.get("IPython")
    return Bars() if shell is not None and shell.get_ipython() is not None else Silent()


@contextmanager
def counting(progress: Progress, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Count bytes on a bar that is closed at the end, whatever happens."""
    bar = progress.bytes(what, total)
    try:
        yield bar.advance
    finally:
        bar.close()


@contextmanager
def waiting(progress: Progress, what: str) -> Iterator[None]:
    """Say every 5 s how long something has taken that cannot tell how far it is."""
    over, begun_s = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(_INTERVAL_S):
            progress.say(f"{what}: {duration(time.monotonic() - begun_s)}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


_USUAL = ("torch", "transformers.modeling_utils")
LOADING = "Loading torch and transformers"


def load(progress: Progress, *modules: str) -> None:
    """Import modules, else torch and what models take of transformers, and say so: it takes long.

    One that cannot be imported is left to whoever uses it, who says what it is needed for.
    """
    names = modules or _USUAL
    if set(names) <= sys.modules.keys():
        return
    what = f"Loading {' and '.join(name.partition('.')[0] for name in names)}"
    progress.say(what)
    with waiting(progress, what):
        for name in names:
            with suppress(ImportError):
                import_module(name)


# Between lines: seldom where much time has passed already.
_FIRST_S, _INTERVAL_S, _LONGEST_INTERVAL_S = 2.0, 5.0, 10.0
_SHARE = 0.1
# Before that nothing is known of the speed.
_LEAST_SHARE = 0.01


class Pace:
    """Says how far something is: after 2 s, then every 5 s, every 10 s where it takes long.

    Args:
        total: How much there is to do.
        shown: How an amount is said.
        first_s: Seconds until it is said first; None takes 2.
    """

    def __init__(
        self, total: int, shown: Callable[[int], str], *, first_s: float | None = None
    ) -> None:
        self._total = total
        self._shown = shown
        self._begun_s = time.monotonic()
        self._next_s = self._begun_s + (_FIRST_S if first_s is None else first_s)

    def due(self, done: int) -> str | None:
        """Return what is done and the time left; None between two lines, and when all is done."""
        now_s = time.monotonic()
        if now_s < self._next_s or done >= self._total:
            return None
        passed_s = now_s - self._begun_s
        self._next_s = now_s + min(max(_INTERVAL_S, _SHARE * passed_s), _LONGEST_INTERVAL_S)
        text = f"{self._shown(done)} of {self._shown(self._total)}"
        if not _LEAST_SHARE * self._total < done < self._total:
            return text
        return f"{text}, {duration(passed_s * (self._total - done) / done)} left"


class SaidBar:
    """Counts bytes where no bar can move: in lines, once it takes longer than 2 s.

    Args:
        progress: Told the lines.
        what: What is counted.
        total: How many bytes there are.
    """

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what = progress, what
        self._pace, self._done = Pace(total, size), 0

    def advance(self, nbytes: int) -> None:
        """Count, and tell if it is time."""
        self._done += nbytes
        if state := self._pace.due(self._done):
            self._progress.say(f"{self._what}: {state}")

    def close(self) -> None:
        """Stop counting."""


# A terminal that is wider than it reads well is not filled.
_WIDEST = 120
# Lines with something to paste, which stays whole; a hint without a trace of that is prose.
_TO_PASTE = re.compile(r"(Next|That is): |Hint: .*([=/`'\"$<>|]|\b(hfgrow|hf|pip) | --?\w)")


def terminal_width() -> int:
    """Return the columns of the terminal, as COLUMNS or the terminal itself says, at most 120."""
    return max(20, min(shutil.get_terminal_size().columns, _WIDEST))


def wrapped(line: str, width: int | None, *, behind: int) -> list[str]:
    """Return a line broken between words, what goes on being indented.

    A name with one long word beside it, such as a path, stays whole.
    """
    if width is None or len(line) <= width or behind >= width - 20:
        return [line]
    *begin, last = line.split()
    if len(begin) <= 1 and len(last) > width - behind:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * behind,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def for_terminal(text: str, stream: TextIO) -> str:
    """Return what is said as a stream takes it: on a terminal broken between words.

    A line that says what to type stays whole, and so does all that no person reads.
    """
    if not stream.isatty():
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        behind = len(line) - len(line.lstrip()) + 2
        width = None if _TO_PASTE.match(line) else terminal_width()
        lines += wrapped(line, width, behind=behind)
    return "\n".join(lines)


def count(number: int) -> str:
    """Return a number of parameters: 134.5 M as 135 M."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{_three_digits(number / limit)} {unit}"
    return str(number)


def size(nbytes: int) -> str:
    """Return a number of bytes: 8.01 GB."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if nbytes >= limit:
            return f"{_three_digits(nbytes / limit)} {unit}"
    return f"{nbytes} B"


def duration(seconds: float) -> str:
    """Return a time to wait: 45 s, 12 min, 3.4 h, 2.1 days."""
    for limit, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * limit:
            number = seconds / limit
            return (
                f"{number:.0f} {unit}" if number >= 10 or unit == "min" else f"{number:.1f} {unit}"
            )
    return f"{seconds:.0f} s"


def short_count(number: int) -> str:
    """Return a number of tokens as it stands in a name: 100K, 2B."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
# Digits, then one of the units.
AMOUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?(?:e\+?\d{1,2})?)\s*([kmbt]?)", re.ASCII | re.IGNORECASE)
MOST = 1e36
# Beyond it more digits stand before the unit than anybody counts.
_MOST_SHOWN = 1e15


def amount(text: str, what: str) -> float:
    """Return the number that a text says, from 1 on.

    Args:
        text: Digits with an exponent or one of the letters K, M, B, T behind them.
        what: The option that it is given for, as the start of the message.

    Raises:
        UsageError: It is no such number.
    """
    found = AMOUNT.fullmatch(text.strip())
    value = float(found[1].replace("_", "")) * UNITS[found[2].upper()] if found else math.nan
    if not 1 <= value <= MOST:
        raise UsageError(f"{what} cannot be {printable(text)}; expected a number such as 7B or 3e9")
    return value


def shown(value: float) -> str:
    """Return a number of parameters or tokens with two decimals of its unit: 15.84 B."""
    if value >= _MOST_SHOWN:
        return f"{value:.3g}"
    for unit in ("T", "B", "M", "K"):
        # What rounds up to 1000 of a unit is one of the next.
        if value >= UNITS[unit] * (1 - 5e-6):
            return f"{value / UNITS[unit]:,.2f} {unit}"
    return f"{value:.0f}"


class _Redacting(io.TextIOWrapper):
    """A stream that hides tokens in whatever is printed: ours, a library's log, a traceback."""

    def write(self, text: str, /) -> int:
        """Write a text, its tokens replaced."""
        super().write(redacted(text))
        return len(text)


def open_streams() -> None:
    """Replace both: a closed stderr is no stdout, and a name in odd bytes is no error."""
    # Where stderr is closed, the next file that is opened would become it.
    sys.stderr = _redacting(sys.stderr, line_buffering=True)
    sys.stdout = _redacting(sys.stdout, line_buffering=False)


def _redacting(stream: object, *, line_buffering: bool) -> io.TextIOWrapper:
    if stream is None:
        return io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    if type(stream) is not io.TextIOWrapper:
        # Somebody who calls us in their own process has put their own stream there.
        return stream  # type: ignore[return-value]  # whatever it is, it is theirs
    stream.flush()
    return _Redacting(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=line_buffering or stream.line_buffering,
    )
