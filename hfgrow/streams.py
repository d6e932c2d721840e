"""stdout and stderr made safe: they exist, take every name, and show no token of the Hub."""

import io
import os
import re
import sys

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")


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


def redacted(text: str) -> str:
    """Hide anything that looks like a Hub token."""
    return _TOKEN.sub("hf_***", text)
