"""The errors of hfgrow: one class for each exit code.

GrowthError                  1  a bug, or the base of the tree
├── UsageError               2  an option or argument that cannot be
├── ModelError               3  bad model input: weights, index, config, tokenizer, card
├── HubRefusedError          4  the Hub said no: 401, 403, gated, not found
├── HubUnreachableError      5  no answer: timeout, 429 after retries, 5xx, offline and not cached
├── HubConflictError         6  409 or 412: somebody else changed the repository
├── OutputError              7  the output exists, is locked, read-only; disk or memory is full
├── TrainingError            8  text that cannot be trained on, divergence, a bad checkpoint
└── VerificationError        9  what was written is not what was planned

The command line turns these, and only these, into one line and an exit code. A message says what
is wrong, with the offending name and value and what was expected; the hint is what to do next.

What a message calls an argument, `argument("hidden_size", 512)`, is written by whoever prints it:
`--hidden-size 512` on the command line, `hidden_size: 512` in a recipe, `hidden_size=512` in
Python, where nothing else is said.
"""

import errno
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Self

_UNPRINTABLE = re.compile(
    r"[^\x20-\x7e\u00a1-\u061b\u061d-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\ud7ff\uf900-\ufdcf]"
)
# Tokens of the Hub.
_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}")
# Who logs in with an address: a name, a password, which may hold an @ itself, or a token.
_LOGIN = re.compile(r"(https?://?)[^\s/]+@", re.IGNORECASE)
# A token lies between two of what `printable` takes out of foreign text, its parts behind others.
_TOKEN = re.compile("\0(\1?[a-z][^\0]*)\0")
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")


def argument(name: str, value: object = "") -> str:
    """Return what a message writes for an argument, and a value to give it."""
    return f"\0{name}\2{_plain(value)}\0"


def one_of(*arguments: str) -> str:
    """Return what a message writes for several arguments, of which one will do."""
    return f"\0\1{chr(3).join(token.strip(chr(0)) for token in arguments)}\0"


def growth(operator: str, **arguments: object) -> str:
    """Return what a message writes for a growth that is to be asked for."""
    given = "".join(f"\3{key}\2{_plain(value)}" for key, value in arguments.items())
    return f"\0{operator}{given}\0"


def option(name: str, value: object = "") -> str:
    """Return an argument as it is typed in a shell."""
    typed = "set" if name == "overrides" else name.replace("_", "-")
    return f"--{typed} {value}".rstrip()


def command(words: str, **options: object) -> str:
    """Return a command of hfgrow as it is typed in a shell, whoever speaks; None leaves one out."""
    given = (option(name, value) for name, value in options.items() if value is not None)
    return " ".join(("hfgrow", words, *given))


def _plain(value: object) -> str:
    return printable(value, 200)


@dataclass(frozen=True, slots=True)
class Speech:
    """How a front end writes an argument, and a growth; None for an argument that it lacks.

    Attributes:
        argument: From the name, and the value or an empty string.
        growth: From the operator, and its arguments by name.
    """

    argument: Callable[[str, str], str | None]
    growth: Callable[[str, Mapping[str, str]], str]

    def spell(self, text: str) -> str:
        """Return a text of tokens as the front end writes it."""
        return _CONTROL.sub("\ufffd", _TOKEN.sub(lambda found: self._token(found[1]), text))

    def _token(self, token: str) -> str:
        if token.startswith("\1"):
            words = [self.argument(*_pair(part)) for part in token[1:].split("\3")]
            *others, last = [word for word in words if word is not None] or [""]
            return f"{', '.join(others)}, or {last}" if others else last
        name, *given = token.split("\3")
        if "\2" in name:
            return self.argument(*_pair(name)) or name.partition("\2")[0]
        return self.growth(name, dict(map(_pair, given)))


def _pair(part: str) -> tuple[str, str]:
    key, _, value = part.partition("\2")
    return key, value


def _step(operator: str, given: Mapping[str, str]) -> str:
    """Return a growth as one of `GrowthRequest.steps`."""
    arguments = ", ".join(f'"{name}": {value}' for name, value in given.items())
    return f'("{operator}", {{{arguments}}})'


PYTHON = Speech(lambda name, value: f"{name}={value}" if value else name, _step)


class Text(str):
    """A text in the words of Python, which keeps its tokens where it goes into another.

    Attributes:
        tokens: The text as it was written.
    """

    tokens: str

    def __new__(cls, text: str) -> Self:
        """Read the tokens of a text, or keep those that it has."""
        tokens = text.tokens if isinstance(text, Text) else text
        made = super().__new__(cls, PYTHON.spell(tokens))
        made.tokens = tokens
        return made

    def __format__(self, spec: str) -> str:
        return format(self.tokens, spec)


class GrowthError(Exception):
    """Something that the user can act on.

    Args:
        message: What is wrong, in one line.
        hint: What to do about it, or an empty string.
        details: Machine-readable additions for ``--json``, such as the candidates for a name.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str = "", details: dict[str, object] | None = None
    ) -> None:
        super().__init__(Text(message))
        self.hint: str = Text(hint)
        self.details = details or {}

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments that the message is about."""
        tokens = _TOKEN.findall(Text(self.args[0]).tokens)
        parts = (part for token in tokens for part in token.lstrip("\1").split("\3"))
        return tuple(_pair(part)[0] for part in parts if "\2" in part)

    def speak(self, speech: Speech) -> None:
        """Write the message and the hint as a front end writes them, for good."""
        message, hint = (Text(text).tokens for text in (self.args[0], self.hint))
        self.args, self.hint = (Text(speech.spell(message)),), Text(speech.spell(hint))

    def __str__(self) -> str:
        return self.args[0] if isinstance(self.args[0], Text) else Text(self.args[0])

    def __format__(self, spec: str) -> str:
        return format(Text(self.args[0]), spec)


class UsageError(GrowthError):
    """An option, argument or name that cannot be."""

    exit_code = 2


class ModelError(GrowthError):
    """A checkpoint that must not be grown as it is."""

    exit_code = 3


class HubRefusedError(GrowthError):
    """The Hub answered no."""

    exit_code = 4


class HubUnreachableError(GrowthError):
    """The Hub did not answer, or not in time."""

    exit_code = 5


class HubConflictError(GrowthError):
    """The repository changed, or belongs to something else."""

    exit_code = 6


class OutputError(GrowthError):
    """The output could not be written where it was asked for, or in the memory that there is."""

    exit_code = 7


class TrainingError(GrowthError):
    """Training cannot begin, or cannot go on: its text, its numbers or its checkpoint."""

    exit_code = 8


class VerificationError(GrowthError):
    """What lies on disk is not what the plan says."""

    exit_code = 9


def error_named(
    name: str, message: str, hint: str, details: dict[str, object] | None = None
) -> GrowthError:
    """Return the error that another process raised and told by the name of its class."""
    kinds: list[type[GrowthError]] = [GrowthError]
    for kind in kinds:
        if kind.__name__ == name:
            return kind(message, hint=hint, details=details)
        kinds += kind.__subclasses__()
    return GrowthError(message, hint=hint, details=details)


# What the loader of libraries, OpenBLAS, torch and threads say where there are no more addresses.
_OF_MEMORY = re.compile(
    r"failed to map segment|[Cc]annot allocate memory|can't allocate memory|"
    r"can't start new thread|[Oo]ut of memory|[Uu]nable to allocate"
)


def out_of_memory(error: BaseException) -> OutputError | None:
    """Return the error for memory that ran out, where that is behind an exception."""
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            break
        is_of_memory = (
            isinstance(link, MemoryError)
            or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
            or (
                isinstance(link, ImportError | RuntimeError)
                and _OF_MEMORY.search(str(link)) is not None
            )
        )
        if is_of_memory:
            return OutputError(
                f"the memory that this process may use is spent ({type(link).__name__})",
                hint="give it more (ulimit -v, a job's or a container's limit), or let less be "
                "done at a time; nothing is wrong with model or disk",
            )
        link = link.__cause__ or link.__context__
    return None


def printable(text: object, limit: int = 80) -> str:
    """Make foreign text safe to print: no control characters, at most `limit` long."""
    clean = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))
    if not clean.isprintable():
        # Marks without a shape of their own lie between the letters of some scripts.
        clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in clean)
    if len(clean) > limit:
        # A password whose @ is cut off is not known for one any more.
        clean = redacted(clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def redacted(text: str) -> str:
    """Return a text with tokens of the Hub hidden, and who logs in with an address.

    Raises:
        TypeError: It is no text: by that click learns whether a stream takes bytes.
    """
    return _LOGIN.sub(r"\1***@", _SECRET.sub("hf_***", text))


@contextmanager
def foreign(refused: Callable[[str], GrowthError]) -> Iterator[None]:
    """Turn what a library raises into an error of hfgrow's.

    A panic of Rust code is caught too, though it is no `Exception`.

    Args:
        refused: From the library's words, shortened and printable, to the error.

    Raises:
        GrowthError: The library failed.
    """
    try:
        yield
    except GrowthError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if (spent := out_of_memory(error)) is not None:
            raise spent from error
        raise refused(said(error)) from error


def said(error: BaseException, limit: int = 200) -> str:
    """Return what a library says, in one line; a word or two say nothing without its kind.

    Args:
        error: What it raised.
        limit: The most characters.
    """
    text = printable(" ".join(str(error).split()), limit)
    return text if text.count(" ") > 1 else f"{type(error).__name__}: {text}"


def missing(*packages: str) -> list[str]:
    """Return which of these packages cannot be imported."""
    return [name for name in packages if find_spec(name) is None]


def require(what: str, *packages: str, extra: str | None = "train") -> None:
    """Refuse something for which a package is missing.

    Args:
        what: What needs them, as the start of the message: `--dtype`.
        packages: Names to import.
        extra: The extra of hfgrow that brings them; None where they have the names to install.

    Raises:
        UsageError: One of them is not installed.
    """
    if absent := missing(*packages):
        wanted = " ".join(absent) if extra is None else f"'hfgrow[{extra}]'"
        raise UsageError(
            f"{what} needs {listed(absent)}, which {'are' if absent[1:] else 'is'} not installed",
            hint=install_command(wanted),
        )


def install_command(wanted: str = "'hfgrow[train]'") -> str:
    """Return what installs something beside this Python, as one types it."""
    return f"{shlex.quote(sys.executable)} -m pip install {wanted}"


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence has them: `torch, numpy and accelerate`."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
