"""Kinds of fields: what a field of hfgrow.json may be is said once, where its dataclass has it.

An annotation says it (`Annotated[int, whole(1)]`), and reading and writing follow. What is read
goes into cards and commands, is replayed by `reproduce` and pushed by name, so nothing passes that
could be code, markup, a path or a number without bound.
"""

import re
from collections.abc import Callable, Container
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from hfgrow.checkpoint.files import MANIFEST
from hfgrow.checkpoint.strict import is_int
from hfgrow.errors import ModelError, printable

_MAX_NUMBER = 1 << 62
# A difference of two logits in float32 is no larger.
MAX_REAL = 1e39
_WORD = re.compile(r"[\w.+-]{1,80}", re.ASCII)
# What stands in a code span of Markdown as it is.
_IN_CODE = r"\w ./@:+=,%()*?!~-"


def damaged(where: str, found: object) -> ModelError:
    """Return the refusal of a field."""
    return ModelError(
        f"{MANIFEST} is damaged: {printable(where)} is {printable(repr(found))}",
        hint="remove it if the model's history does not matter",
    )


def as_phrase(text: object) -> str:
    """Return a text as a few words that Markdown cannot take for markup in a code span."""
    return re.sub(f"[^{_IN_CODE}]", "_", printable(text, 200)) or "_"


def _as_label(text: str) -> str:
    """Return a text as a name for people, of characters that can be printed."""
    return printable(text, 300)


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class FieldKind:
    """What a field may be.

    Attributes:
        read: From JSON, and the name of the field for a refusal, to its value.
        write: From its value to JSON.
        names_owner: Whether a refusal says whose field it is.
    """

    read: Callable[[Any, str], Any]
    write: Callable[[Any], Any] = _unchanged
    names_owner: bool = False


# In the annotation of a field: records of an older hfgrow lack it, and its default stands for it.
LATER = object()


def fitting(fits: Callable[[Any], bool], write: Callable[[Any], Any] = _unchanged) -> FieldKind:
    """Return the kind of the values that fit."""

    def read(value: Any, where: str) -> Any:
        if not fits(value):
            raise damaged(where, value)
        return value

    return FieldKind(read, write)


def whole(least: int = 0, most: int = _MAX_NUMBER) -> FieldKind:
    """Return the kind of an integer."""
    return fitting(lambda v: is_int(v) and least <= v <= most)


def real(least: float = 0, most: float = MAX_REAL) -> FieldKind:
    """Return the kind of a number; NaN and infinity are none."""
    number = fitting(lambda v: (is_int(v) or isinstance(v, float)) and least <= v <= most)
    return FieldKind(lambda value, where: float(number.read(value, where)))


def text(shape: re.Pattern[str]) -> FieldKind:
    """Return the kind of a text of a shape."""
    return fitting(lambda v: isinstance(v, str) and bool(shape.fullmatch(v)))


def one_of(values: Container[str]) -> FieldKind:
    """Return the kind of a text out of some."""
    return fitting(lambda v: isinstance(v, str) and v in values)


def is_word(value: object) -> bool:
    """Say whether a value is a name of letters, digits and marks, without space or quote."""
    return isinstance(value, str) and bool(_WORD.fullmatch(value))


WORD = fitting(is_word)
PHRASE = FieldKind(text(re.compile(f"[{_IN_CODE}]{{1,200}}")).read, as_phrase)
LABEL = fitting(lambda v: isinstance(v, str) and v != "" and _as_label(v) == v, _as_label)
SHA256 = text(re.compile(r"[0-9a-f]{64}"))
OBJECT = fitting(lambda v: isinstance(v, dict), dict)


def settings(fits: Callable[[object], bool], most: int = _MAX_NUMBER) -> FieldKind:
    """Return the kind of an object of at most so many words, each with a value that fits."""

    def read(value: Any, where: str) -> Any:
        content = OBJECT.read(value, where)
        if len(content) > most:
            raise damaged(where, f"{len(content)} of them")
        for key, found in content.items():
            if not is_word(key) or not fits(found):
                raise damaged(where, f"{key}: {found}")
        return content

    return FieldKind(read, dict)


def items(kind: FieldKind, most: int, least: int = 1) -> FieldKind:
    """Return the kind of a list of `least` to `most` items of a kind."""
    listed = fitting(lambda v: isinstance(v, list) and least <= len(v) <= most)
    return FieldKind(
        lambda value, where: tuple(kind.read(item, where) for item in listed.read(value, where)),
        lambda values: [kind.write(value) for value in values],
    )


@cache
def record(of: type, **given: FieldKind) -> FieldKind:
    """Return the kind of a dataclass, whose annotations say the kinds of its fields.

    A field that may be None, or is LATER, may be absent; None is not written where it is the
    default. Other keys are ignored.

    Args:
        given: The kinds of the fields whose annotations do not say them, by name.
    """

    def read(value: Any, where: str) -> Any:
        content = OBJECT.read(value, where)
        return of(
            **{
                one.name: one.read(content.get(one.name), where)
                for one in _declared(of, **given)
                if one.name in content or not one.is_later
            }
        )

    def write(value: Any) -> dict[str, object]:
        known = ((one, getattr(value, one.name)) for one in _declared(of, **given))
        return {
            one.name: None if found is None else one.kind.write(found)
            for one, found in known
            if found is not None or not one.is_omitted
        }

    return FieldKind(read, write)


class Record:
    """A dataclass of hfgrow.json."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known."""
        of: Any = type(self)
        content: dict[str, Any] = record(of).write(self)
        return content


class _Declared(NamedTuple):
    """A field: its kind, whether null stands for None, and what of it may be left out."""

    name: str
    kind: FieldKind
    may_be_none: bool
    is_omitted: bool
    is_later: bool

    def read(self, value: Any, where: str) -> Any:
        if value is None and self.may_be_none:
            return None
        return self.kind.read(value, f"{self.name} of {where}" * self.kind.names_owner or self.name)


@cache
def _declared(of: type, **given: FieldKind) -> tuple[_Declared, ...]:
    hints, found = get_type_hints(of, include_extras=True), []
    for field in fields(of):
        hint, may_be_none = hints[field.name], NoneType in get_args(hints[field.name])
        if may_be_none:
            hint = next(arg for arg in get_args(hint) if arg is not NoneType)
        said = getattr(hint, "__metadata__", ())
        kind = given.get(field.name) or (said[0] if said else _kind_of(hint))
        found.append(_Declared(field.name, kind, may_be_none, field.default is None, LATER in said))
    return tuple(found)


def _kind_of(hint: Any) -> FieldKind:
    """Return what an annotation says that names no kind."""
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    plain = {int: whole(), float: real(), bool: fitting(lambda v: isinstance(v, bool))}
    return plain[hint] if hint in plain else record(hint)
