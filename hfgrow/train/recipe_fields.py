"""What the parts of a recipe are made of: strict mappings, token counts, shares, numbers, text."""

import difflib
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from hfgrow.console import AMOUNT, UNITS
from hfgrow.errors import printable

Location = tuple[int | str, ...]

# Any reader of JSON has the integers below exactly.
_MAX_TOKENS = 1 << 53
# 3e-4 and 1.5e6 are numbers to people and JSON, but text to YAML 1.1.
_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)e[-+]?\d{1,3}", re.ASCII | re.IGNORECASE)
_A_COUNT = "a number of tokens from 1 to 9e15, such as 2_000_000, 2e6 or 2M"
_A_SPAN = "a share from 0 to below 1, or a number of tokens above 1, such as 0.01 or 20M"


def expected(what: str) -> PydanticCustomError:
    """Return the refusal of a value by what was expected instead."""
    return PydanticCustomError("expected", "{what}", {"what": what})


def refusal(faults: Iterable[tuple[Location, Any, str]]) -> ValidationError:
    """Return the refusal of several values: where each stands, what it is, what was expected."""
    details = [
        InitErrorDetails(type=expected(what), loc=location, input=value)
        for location, value, what in faults
    ]
    return ValidationError.from_exception_data("recipe", details)


class Part(BaseModel):
    """A mapping of known keys; null stands for a key's default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    # Keys that null does not leave out, because it says something else than their default.
    meant_nulls: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _of_known_keys(cls, content: Any) -> Any:
        if isinstance(content, dict):
            known = cls.model_fields
            refuse_unknown(content, known)
            return {
                key: value
                for key, value in content.items()
                if value is not None or key in cls.meant_nulls or known[key].is_required()
            }
        return content

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {
            key: value
            for key, value in content.items()
            if value is not None or key in self.meant_nulls
        }


def refuse_unknown(content: dict[Any, Any], known: Iterable[str]) -> None:
    """Refuse keys that are none, naming the nearest.

    Raises:
        ValidationError: There is one.
    """
    details = []
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            keys = ", ".join(known) or "none"
            kind = PydanticCustomError("unknown", "{near}", {"near": near[0] if near else keys})
            details.append(InitErrorDetails(type=kind, loc=(printable(key),), input=content[key]))
    if details:
        raise ValidationError.from_exception_data("recipe", details)


def number(value: Any) -> Any:
    """Return the number that a text such as 3e-4 means; leave everything else as it is."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def whole(value: Any) -> Any:
    """Return the whole number that 1e3 or 1000.0 means; leave everything else as it is."""
    given = number(value)
    return int(given) if isinstance(given, float) and given.is_integer() else value


def numbers_in(value: Any) -> Any:
    """Return nested lists and mappings with each text such as 3e-4 as the number it means."""
    if isinstance(value, dict):
        return {key: numbers_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers_in(item) for item in value]
    return number(value)


def span_tokens(span: int | float | None, total: int) -> int:
    """Return the tokens of a span: a share of `total`, or a count; none is 0."""
    if isinstance(span, float):
        return round(span * total)
    return span or 0


def _tokens(value: Any) -> int:
    match value:
        case bool():
            raise expected(_A_COUNT)
        case int():
            count = Decimal(value)
        case float() if abs(value) < _MAX_TOKENS:
            count = Decimal(value)
        case str() if found := AMOUNT.fullmatch(value.strip()):
            count = Decimal(found[1].replace("_", "")) * UNITS[found[2].upper()]
        case _:
            raise expected(_A_COUNT)
    if not 1 <= count <= _MAX_TOKENS or count != int(count):
        raise expected(_A_COUNT)
    return int(count)


def _span(value: Any) -> int | float:
    given = number(value)
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < 1:
        return float(given)
    try:
        count = _tokens(value)
    except PydanticCustomError:
        raise expected(_A_SPAN) from None
    if count == 1:
        raise expected(_A_SPAN)
    return count


def _text(value: str) -> str:
    if not value.strip() or printable(value, 4096) != value:
        raise expected("text of up to 4096 printable characters")
    return value


Tokens = Annotated[int, BeforeValidator(_tokens)]
Span = Annotated[int | float, BeforeValidator(_span)]
Number = Annotated[float, BeforeValidator(number)]
Rate = Annotated[Number, Field(gt=0, le=1000)]
Text = Annotated[str, AfterValidator(_text)]
Whole = Annotated[int, BeforeValidator(whole)]
Count = Annotated[Whole, Field(ge=1, le=1 << 31)]
