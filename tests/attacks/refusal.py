"""What every refusal of a hostile file has in common."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from hfgrow.errors import ModelError
from tests.attacks.craft import check
from tests.program import Finished, run_hfgrow

_LIMIT_S = 10
_MEMORY_NBYTES = 2 << 30
Result = TypeVar("Result")


def result_or_refusal(read: Callable[[], Result]) -> tuple[Result | None, str]:
    """Return what a function gives, or the message of its refusal; anything else is a crash."""
    try:
        return read(), ""
    except ModelError as error:
        return None, str(error)


def check_refused(folder: Path, *words: str) -> str:
    """Read a folder; expect one printable line that holds all the words, soon."""
    with _soon(), pytest.raises(ModelError) as caught:
        check(folder)
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 500, message
    for word in words:
        assert word in message, message
    return message


def check_refused_in_little_memory(folder: Path) -> Finished:
    """Run the strict reader in a process of its own that may use 2 GB of addresses."""
    finished = run_hfgrow("check", folder, timeout=_LIMIT_S, address_space_nbytes=_MEMORY_NBYTES)
    assert finished.returncode == 3, finished.stderr
    assert finished.stderr.startswith("Error: ")
    assert "Traceback" not in finished.stderr
    return finished


@contextmanager
def _soon() -> Iterator[None]:
    """Let a read that hangs, such as one of a FIFO, fail the test instead of stopping it."""

    def give_up(number: int, frame: object) -> None:
        raise AssertionError(f"not refused within {_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
