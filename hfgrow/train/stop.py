"""Being asked to stop: between two steps of training, or in work that can be undone."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StoppedError(BaseException):
    """The run was stopped by a signal; what it had saved stays.

    No Exception: what libraries do about those must not keep it from ending the run.

    Args:
        number: The signal.
        message: Where the run stands.
    """

    def __init__(self, number: int, message: str = "Stopped; what was saved stays") -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """Remembers a signal, and is asked between steps.

    Attributes:
        number: The signal that came, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._raises = self._is_held = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Remember SIGTERM, SIGINT and SIGHUP instead of ending; an impatient SIGINT ends at once.

        SIGTERM may come twice for one stop: from whoever stops the run, and from the launcher. What
        was ignored, as SIGHUP is under nohup, stays so.
        """

        def remember(number: int, frame: object) -> None:
            if self.number and number == signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.number = self.number or number
            self._end()

        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, remember) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Let a signal end the block, or one that came before it; not inside `held`.

        Raises:
            StoppedError: There is such a signal.
        """
        self._raises = not self._is_held
        try:
            if self.number:
                self._end()
            yield
        finally:
            self._raises = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only remember signals inside the block, which asks for them itself."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False

    def _end(self) -> None:
        if self._raises:
            # Once: the next signal finds the work being undone.
            self._raises = False
            raise StoppedError(self.number)
