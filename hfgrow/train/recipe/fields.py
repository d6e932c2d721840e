"""Kinds of values in a recipe: mappings, token counts, shares, numbers, text; faults as a line."""

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
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from hfgrow.console import AMOUNT, UNITS
from hfgrow.errors import UsageError, command, printable

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


def check_one(part: "Part", *kinds: str) -> None:
    """Refuse a part that is not exactly one of its kinds.

    Raises:
        ValidationError: It has none of the keys, or several.
    """
    if sum(getattr(part, kind) is not None for kind in kinds) != 1:
        raise refusal([((), part.model_dump(), f"exactly one of {' and '.join(kinds)}")])


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


# What an editor takes: YAML 1.2 has 1e3 as a number and 2_000_000 as text, 1.1 the other way round.
_AN_AMOUNT = r"^\s*\d[\d_]*(\.\d+)?([eE]\+?\d{1,2})?\s*[kmbtKMBT]?\s*$"
_AS_TEXT = {"type": "string", "pattern": _AN_AMOUNT}
A_NUMBER = {
    "type": ["number", "string"],
    "pattern": r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d{1,3}$",
}
Tokens = Annotated[
    int,
    BeforeValidator(_tokens),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1}, _AS_TEXT]}),
]
Span = Annotated[
    int | float,
    BeforeValidator(_span),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, _AS_TEXT]}),
]
Number = Annotated[float, BeforeValidator(number), WithJsonSchema(A_NUMBER)]
Rate = Annotated[
    Number,
    Field(gt=0, le=1000),
    WithJsonSchema({**A_NUMBER, "exclusiveMinimum": 0, "maximum": 1000}),
]
NotNegative = Annotated[Number, Field(ge=0), WithJsonSchema({**A_NUMBER, "minimum": 0})]
Text = Annotated[str, AfterValidator(_text)]
Whole = Annotated[int, BeforeValidator(whole)]
Count = Annotated[Whole, Field(ge=1, le=1 << 31)]

# A kind of fault -> what was expected, where its own words would be those of Python.
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}
_PREFIX = "Input should be "
# A mapping or list by its path -> an example; VALUE is what was given, if that may be meant there.
_EXAMPLES = {
    "data": ("{train: [{path: VALUE}], sequence_length: 1024}", "text/"),
    "data.train": ("[{path: VALUE}]", "text/"),
    "data.train.N": ("{path: VALUE}", "text/"),
    "data.validation": ("[{path: VALUE}]", "text/"),
    "data.validation.N": ("{path: VALUE}", "text/"),
    "optimizer": ("{name: VALUE}", "adamw"),
    "optimizer.betas": ("[0.9, 0.95]", ""),
    "checkpoint": ("{every_tokens: VALUE}", "10M"),
    "evaluation": ("{every_tokens: VALUE}", "10M"),
    "stages": ("[{train: {tokens: 1B, learning_rate: 1e-3}}]", ""),
    "stages.N": ("{train: {tokens: 1B, learning_rate: 1e-3}}", ""),
    "stages.N.train": ("{tokens: VALUE, learning_rate: 1e-3}", "1B"),
    "stages.N.train.until": ("{plateau: 0.01, evaluations: 3}", ""),
    "stages.N.grow": ("{operator: VALUE, g: 2}", "stack"),
    "trackers": ("[VALUE]", "tensorboard"),
    "push": ("{repo: VALUE}", "you/name"),
    "world": ("{processes: 2}", ""),
}
# What axolotl, TRL and Trainer call it -> where it stands here.
ELSEWHERE = {
    "base_model": "base",
    "bf16": "precision",
    "dataset_name": "data.train",
    "datasets": "data.train",
    "gradient_checkpointing": "activation_checkpointing",
    "hub_model_id": "push.repo",
    "learning_rate": "stages.N.train.learning_rate",
    "lr_scheduler": "stages.N.train.schedule",
    "lr_scheduler_type": "stages.N.train.schedule",
    "max_grad_norm": "stages.N.train.gradient_clipping",
    "max_seq_length": "data.sequence_length",
    "max_steps": "stages.N.train.tokens",
    "model_name_or_path": "base",
    "num_epochs": "stages.N.train.tokens",
    "num_train_epochs": "stages.N.train.tokens",
    "output_dir": "output",
    "per_device_train_batch_size": "micro_batch_size",
    "pretraining_dataset": "data.train",
    "report_to": "trackers",
    "sequence_len": "data.sequence_length",
    "test_datasets": "data.validation",
    "warmup_ratio": "stages.N.train.warmup",
    "warmup_steps": "stages.N.train.warmup",
    "weight_decay": "optimizer.weight_decay",
}
_MOST_TOLD = 700
_NUMBER = re.compile(r"(?<=\.)\d+", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][\w./-]{0,99}", re.ASCII)


def refused(error: ValidationError, content: object, where: str) -> UsageError:
    """Return the refusal of a recipe: its first fault in words, the paths of the others as hint.

    Args:
        error: What pydantic found.
        content: The recipe as it was read.
    """
    faults = {_path(fault, content): fault for fault in reversed(error.errors(include_url=False))}
    # A list with a faulty entry is also called too short.
    paths = [p for p in faults if not any(other.startswith(f"{p}.") for other in faults)][::-1]
    known = [f"{path} ({ELSEWHERE[path]})" if path in ELSEWHERE else path for path in paths[1:]]
    more = printable(", ".join(known), _MOST_TOLD)
    hint = f"wrong too: {more}" if more else ""
    if any(path in ELSEWHERE for path in paths):
        begin = command("recipes demo", copy="mine.yaml")
        hint = "; ".join(filter(None, (f"{begin} begins a recipe of hfgrow's", hint)))
    return UsageError(f"{where}: {_said(faults[paths[0]], paths[0])}", hint=hint)


def _said(fault: Any, path: str) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "unknown":
        near = ELSEWHERE.get(path) or context["near"]
        told = f"the keys here are {near}" if ", " in near else f"did you mean {near}?"
        return f"there is no key {path} (= {_shown(fault['input'])}); {told}"
    if kind in ("missing", "union_tag_not_found"):
        return f"{path} is missing"
    if kind == "union_tag_invalid":
        return f"{path} is {_shown(context['tag'])}; expected {context['expected_tags']}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else ""
        bound = bound or f"at most {context['max_length']}"
        return f"{path} has {context['actual_length']} entries; expected {bound}"
    known = _EXPECTED.get(kind)
    words = known.format(**context) if known else fault["msg"].removeprefix(_PREFIX)
    example = _example(path, fault["input"]) if words in ("a mapping", "a list") else ""
    return f"{path} is {_shown(fault['input'])}; expected {words}{example}"


def _example(path: str, value: object) -> str:
    """Return what could stand at a path, with the value in it where it is text."""
    example, usual = _EXAMPLES.get(_NUMBER.sub("N", path), ("", ""))
    given = value if isinstance(value, str) and _WORD.fullmatch(value) else usual
    return f", such as {example.replace('VALUE', given)}" if example else ""


def _path(fault: Any, content: Any) -> str:
    """Return where a fault stands in what was read; pydantic names its own alternatives too."""
    path: list[str] = []
    *_, last = fault["loc"] or (None,)
    for part in fault["loc"]:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            if part != last or not isinstance(content, dict | list):
                continue
        path.append(printable(part))
    if fault["type"].startswith("union_tag"):
        path.append(fault["ctx"]["discriminator"].strip("'"))
    return ".".join(path) or "the recipe"


def _shown(value: object) -> str:
    return "null" if value is None else printable(repr(value))
