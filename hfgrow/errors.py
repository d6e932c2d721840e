"""The errors of hfgrow: one class for each exit code.

GrowthError                  1  a bug, or the base of the tree
├── UsageError               2  an option or argument that cannot be
├── ModelError               3  bad model input: weights, index, config, tokenizer, card
├── HubRefusedError          4  the Hub said no: 401, 403, gated, not found
├── HubUnreachableError      5  no answer: timeout, 429 after retries, 5xx, offline and not cached
├── HubConflictError         6  409 or 412: somebody else changed the repository
├── OutputError              7  the output exists, is locked, read-only, or the disk is full
├── TrainingError            8  text that cannot be trained on, divergence, a bad checkpoint
└── VerificationError        9  what was written is not what was planned

The command line turns these, and only these, into one line and an exit code. A message says what
is wrong, with the offending name and value and what was expected; the hint is what to do next.

Calls into libraries that parse what a stranger wrote: whatever they raise becomes one error.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_UNPRINTABLE = re.compile(
    r"[^\x20-\x7e\u00a1-\u061b\u061d-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\ud7ff\uf900-\ufdcf]"
)
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")


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
        super().__init__(message)
        self.hint = hint
        self.details = details or {}


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
    """The output could not be written where it was asked for."""

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


def printable(text: object, limit: int = 80) -> str:
    """Make foreign text safe to print: no control characters, at most `limit` long."""
    clean = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))
    if not clean.isprintable():
        # Marks without a shape of their own lie between the letters of some scripts.
        clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def redacted(text: str) -> str:
    """Return a text with whatever looks like a token of the Hub hidden.

    Raises:
        TypeError: It is no text: by that click learns whether a stream takes bytes.
    """
    return _TOKEN.sub("hf_***", text)


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
        raise refused(_said(error)) from error


def _said(error: BaseException) -> str:
    """Return what a library says; a word or two say nothing without the kind of the error."""
    text = printable(" ".join(str(error).split()), 200)
    return text if text.count(" ") > 1 else f"{type(error).__name__}: {text}"
