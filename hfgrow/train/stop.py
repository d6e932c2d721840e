"""Being asked to stop: between two steps of training, where a checkpoint can be saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """The run was stopped by a signal, after its checkpoint was saved.

    Args:
        number: The signal.
        message: Where the run stands and how it goes on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """Remembers a signal, and is asked between steps.

    Attributes:
        number: The signal that came, or 0.
    """

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Remember SIGTERM and SIGINT instead of ending; an impatient SIGINT ends at once.

        SIGTERM may come twice for one stop: from whoever stops the run, and from the launcher.
        """
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def remember(number: int, frame: object) -> None:
            if self.number and number == signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.number = self.number or number

        for number in _SIGNALS:
            signal.signal(number, remember)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
