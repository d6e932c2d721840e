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
from hfgrow.checkpoint.strict import read_json_object
from hfgrow.errors import ModelError, printable

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
# Normalizers in use make at most some hundred characters of one, nearly all of them two.
_MOST_CHARACTERS = 4096
# Characters that one can become by canonical and by compatibility decomposition.
_UNICODE = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 2, "BertNormalizer": 9}
_FEW_ADDED = 64
# Characters that all added tokens may have once they are normalised, as loading does.
_MOST_ADDED = 1 << 24
# WordPiece tries every part of a word, so its time goes with the square of this.
_LONGEST_WORD = 1000
# A number of a tokenizer's own, such as extra_ids, that makes tokens; lengths may be endless.
_LARGEST_NUMBER = 1_000_000
_LENGTHS = ("model_max_length", "max_length")
# UTF-8 has up to four bytes, each of which becomes a character.
_BYTES = 4
# Patterns that are seen at a glance to need a character: literals, classes, {1} and {1,} and above.
_NEEDS_ONE = re.compile(r"(?:[^\\*?{|^$(]|\\[sSdDwWntr.]|\{[1-9]\d*,?\})+")


def check_tokenizer_bounds(folder: Path) -> None:
    """Refuse a tokenizer.json that may make very much of a little text; none is fine.

    Raises:
        ModelError: It does, or it is no JSON object.
    """
    if not (folder / _FILE).is_file():
        return
    files = LocalFolder(folder)
    content = read_json_object(files, _FILE)
    most = most_characters(content)
    _check_model(content)
    _check_added(content)
    if (folder / _CONFIG).is_file():
        _check_config(read_json_object(files, _CONFIG))
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


def _check_model(content: Mapping[str, Any]) -> None:
    model = content.get("model")
    longest = model.get("max_input_chars_per_word", 0) if isinstance(model, dict) else 0
    if not isinstance(longest, int) or longest > _LONGEST_WORD:
        raise ModelError(
            f"{_FILE}: max_input_chars_per_word must be at most {_LONGEST_WORD}, or a long word "
            "takes for ever",
            hint="100 is usual",
        )


def _check_added(content: Mapping[str, Any]) -> None:
    added = content.get("added_tokens") or ()
    texts = [token.get("content") for token in added if isinstance(token, dict)]
    total = sum(len(text) for text in texts if isinstance(text, str))
    if total * _growth(content.get("normalizer"), "normalizers", _NORMALIZERS) > _MOST_ADDED:
        raise ModelError(
            f"{_FILE}: its added tokens would fill the memory once they are normalised",
            hint="look at its normalizer and added_tokens",
        )


def _check_config(content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, int) and value > _LARGEST_NUMBER and key not in _LENGTHS:
            raise ModelError(
                f"{_CONFIG}: {printable(key)} is {value}, more than {_LARGEST_NUMBER}",
                hint="correct it, or remove it",
            )


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
    """Return the characters of the longest text of a charsmap: a trie, and texts apart by NUL."""
    try:
        raw = base64.b64decode(part["precompiled_charsmap"] or "", validate=True)
    except binascii.Error:
        return 1
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max(1, *(len(text.decode("utf-8", "replace")) for text in texts.split(b"\0")))


def _template(part: Mapping[str, Any]) -> int:
    """Return how often a text stands in a template, or how many tokens it adds if many."""
    tokens = part["special_tokens"]
    num_texts = num_added = 0
    for piece in part["single"]:
        if "Sequence" in piece:
            num_texts += 1
        else:
            num_added += len(tokens[piece["SpecialToken"]["id"]]["ids"])
    return max(1, num_texts, num_added if num_added > _FEW_ADDED else 0)


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
