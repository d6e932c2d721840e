"""The fields of hfgrow.json, each checked when it is taken: kind, shape and bounds."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hfgrow.checkpoint.files import MANIFEST
from hfgrow.checkpoint.strict import is_int
from hfgrow.errors import ModelError, printable

_MAX_NUMBER = 1 << 62
# A difference of two logits in float32 is no larger.
_MAX_REAL = 1e39
_WORD = re.compile(r"[\w.+-]{1,80}", re.ASCII)
# What stands in a code span of Markdown as it is.
_PHRASE = re.compile(r"[\w ./@:+=,%()*?!~-]{1,200}")


def is_word(value: object) -> bool:
    """Say whether a value is a name that no shell or Markdown reads as anything else."""
    return isinstance(value, str) and bool(_WORD.fullmatch(value))


def is_phrase(value: object) -> bool:
    """Say whether a value is a few words that Markdown cannot take for markup in a code span."""
    return isinstance(value, str) and bool(_PHRASE.fullmatch(value))


def as_phrase(text: object) -> str:
    """Return a text as such a phrase: what cannot stand in one becomes `_`."""
    return re.sub(r"[^\w ./@:+=,%()*?!~-]", "_", printable(text, 200)) or "_"


def is_label(value: object) -> bool:
    """Say whether a value is a name for people, of characters that can be printed."""
    return isinstance(value, str) and bool(value) and as_label(value) == value


def as_label(text: str) -> str:
    """Return a name as such a label."""
    return printable(text, 300)


def words(value: Any, where: str) -> dict[str, str]:
    """Return an object of words."""
    content = object_of(value, where)
    for key, word in content.items():
        if not is_word(key) or not is_word(word):
            raise damaged(where, f"{key}: {word}")
    return dict(content)


def object_of(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be an object."""
    if not isinstance(value, dict):
        raise damaged(where, value)
    return value


def list_in(content: Mapping[str, Any], key: str, *, most: int, least: int = 1) -> list[Any]:
    """Return a field that must be a list of `least` to `most` items."""
    value: list[Any] = checked(
        content, key, lambda v: isinstance(v, list) and least <= len(v) <= most
    )
    return value


def number(content: Mapping[str, Any], key: str, *, least: int = 0, most: int = _MAX_NUMBER) -> int:
    """Return a field that must be an integer."""
    return int(checked(content, key, lambda v: is_int(v) and least <= v <= most))


def real(content: Mapping[str, Any], key: str, *, most: float = _MAX_REAL) -> float:
    """Return a field that must be a number from 0; NaN and infinity are none."""
    return float(
        checked(content, key, lambda v: (is_int(v) or isinstance(v, float)) and 0 <= v <= most)
    )


def optional(content: Mapping[str, Any], key: str, shape: re.Pattern[str]) -> str | None:
    """Return a field that may be absent, and otherwise must be text of a shape."""
    return None if content.get(key) is None else shaped(content, key, shape)


def shaped(content: Mapping[str, Any], key: str, shape: re.Pattern[str]) -> str:
    """Return a field that must be text of a shape."""
    return str(checked(content, key, lambda v: isinstance(v, str) and bool(shape.fullmatch(v))))


def checked(content: Mapping[str, Any], key: str, fits: Callable[[Any], bool]) -> Any:
    """Return a field that fits.

    Raises:
        ModelError: It does not.
    """
    value = content.get(key)
    if not fits(value):
        raise damaged(key, value)
    return value


def damaged(where: str, found: object) -> ModelError:
    """Return the refusal of a field."""
    return ModelError(
        f"{MANIFEST} is damaged: {printable(where)} is {printable(repr(found))}",
        hint="remove it if the model's history does not matter",
    )
