"""Documents as they stream: pieces of text, the last of each marked."""

from collections.abc import Callable
from typing import NamedTuple

from hfgrow.errors import TrainingError

Advance = Callable[[int], None]


class Piece(NamedTuple):
    """A part of a document; a document that stands in memory anyway is one piece."""

    text: str
    is_last: bool


def not_utf8(shown: str, offset: int, raw: bytes, start: int) -> TrainingError:
    """Return the error for bytes that are no UTF-8.

    Args:
        shown: The file, as messages name it.
        offset: Where `raw` begins in the file, in bytes.
        raw: The bytes.
        start: Where the offending byte stands in `raw`.
    """
    found = f"byte 0x{raw[start]:02x} at offset {offset + start}"
    if offset + start == 0 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return TrainingError(
            f"{shown} is UTF-16, not UTF-8 ({found})",
            hint="convert it: iconv -f UTF-16 -t UTF-8",
        )
    return TrainingError(
        f"{shown} is not UTF-8: {found}", hint="convert it: iconv -f ITS_ENCODING -t UTF-8"
    )
