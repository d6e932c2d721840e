"""Calls into libraries that parse what a stranger wrote: whatever they raise becomes one error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hfgrow.errors import GrowthError, printable


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
