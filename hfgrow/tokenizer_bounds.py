"""A tokenizer from a stranger may turn a page into gigabytes: what one character can become.

A normalizer that replaces `e` by `ee`, two dozen times, is a tokenizer.json of 2 kB. So every part
of the pipeline of the `tokenizers` library is given the most that it makes of one character, and
their product is bounded before any text goes through.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.strictjson import read_json_object
from hfgrow.errors import ModelError

_FILE = "tokenizer.json"
# Normalizers in use make at most some hundred characters of one, nearly all of them two.
_MOST_CHARACTERS = 4096
# Characters that one can become by canonical and by compatibility decomposition.
_UNICODE = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 3, "BertNormalizer": 9}
# UTF-8 has up to four bytes, each of which becomes a character.
_BYTES = 4
# Patterns that are seen at a glance to need a character: literals, classes, {1,} and above.
_NEEDS_ONE = re.compile(r"(?:[^\\*?{|^$(]|\\[sSdDwWntr.]|\{[1-9]\d*,?\d*\})+")


def check_tokenizer_bounds(folder: Path) -> None:
    """Refuse a tokenizer.json that may make very much of a little text; none is fine.

    Raises:
        ModelError: It does, or it is no JSON object.
    """
    if not (folder / _FILE).is_file():
        return
    most = most_characters(read_json_object(LocalFolder(folder), _FILE))
    if most > _MOST_CHARACTERS:
        raise ModelError(
            f"{_FILE} can make {_shown(most)} characters of one, more than the {_MOST_CHARACTERS} "
            "that are let through: text would fill the memory",
            hint="look at its normalizer, pre_tokenizer and post_processor",
        )


def most_characters(content: Mapping[str, Any]) -> int:
    """Return a bound of what a tokenizer makes of one character; it need not be reached.

    Args:
        content: Of tokenizer.json.

    Raises:
        ModelError: A part has not the form that the library itself writes. It reads others too, so
            what they make of a text is not known.
    """
    most = 1
    for name, inner, known in (
        ("normalizer", "normalizers", _NORMALIZERS),
        ("pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS),
        ("post_processor", "processors", _POST_PROCESSORS),
    ):
        try:
            most *= _growth(content.get(name), inner, known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{_FILE}: {name} has a part without a type, or of no known form",
                hint="write it anew with the tokenizers library: Tokenizer.save",
            ) from error
    return most


def _shown(most: int) -> str:
    return str(most) if most < 10**9 else "billions of"


def _growth(
    part: Mapping[str, Any] | None, inner: str, known: Mapping[str, Callable[[Any], int]]
) -> int:
    """Return the most characters that a part of the pipeline, or a sequence of them, makes of one.

    Parts are multiplied though most of them do nothing to what another has made: a bound, no
    prediction.
    """
    if part is None:
        return 1
    most = 1
    waiting = [part]
    while waiting and most <= _MOST_CHARACTERS:
        one = waiting.pop()
        kind = one["type"]
        if kind == "Sequence":
            waiting += one[inner]
        else:
            most *= known.get(kind, partial(_constant, 1))(one)
    return most


def _constant(most: int, _: Mapping[str, Any]) -> int:
    return most


def _replacing(part: Mapping[str, Any]) -> int:
    ((kind, pattern),) = part["pattern"].items()
    content = part["content"]
    if kind == "String" and pattern:
        return max(1, ceil(len(content) / len(pattern)))
    needs_one = kind == "Regex" and _NEEDS_ONE.fullmatch(pattern)
    return max(1, len(content)) if needs_one else 1 + len(content)


def _precompiled(part: Mapping[str, Any]) -> int:
    """Return the longest text of a charsmap of sentencepiece: a trie, then texts that NUL parts."""
    try:
        raw = base64.b64decode(part["precompiled_charsmap"] or "", validate=True)
    except binascii.Error:
        return 1
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max(1, *map(len, texts.split(b"\0")))


def _template(part: Mapping[str, Any]) -> int:
    """Return how often a text stands in a template, with every special token in it for one more."""
    tokens = part["special_tokens"]
    most = 0
    for piece in part["single"]:
        is_text = "Sequence" in piece
        most += 1 if is_text else len(tokens[piece["SpecialToken"]["id"]]["ids"])
    return max(1, most)


_NORMALIZERS: Mapping[str, Callable[[Any], int]] = {
    **{name: partial(_constant, most) for name, most in _UNICODE.items()},
    "ByteLevel": partial(_constant, _BYTES),
    "Prepend": lambda part: 1 + len(part["prepend"]),
    "Precompiled": _precompiled,
    "Replace": _replacing,
}
# Either may put a space before every piece, and another part may cut text into its characters.
_PRE_TOKENIZERS: Mapping[str, Callable[[Any], int]] = {
    "ByteLevel": partial(_constant, _BYTES + 1),
    "Metaspace": partial(_constant, 2),
}
_POST_PROCESSORS: Mapping[str, Callable[[Any], int]] = {"TemplateProcessing": _template}
