"""Operators as one types them: `stack --g 2`, `partial 12-34*2`."""

import inspect
import shlex
from types import UnionType
from typing import Any, get_args, get_type_hints

from hfgrow.describe import is_positional
from hfgrow.errors import UsageError, printable
from hfgrow.operators import OPERATORS

Step = tuple[str, dict[str, object]]


def typed_step(text: str) -> Step:
    """Return the operator and the arguments that a command line says.

    Args:
        text: What stands behind `hfgrow`, without the model.

    Raises:
        UsageError: There is no such operator or option, or a value is missing or does not fit.
    """
    try:
        name, *words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{printable(repr(text))} is no operator: expected stack --g 2") from error
    if name not in OPERATORS:
        raise UsageError(
            f"there is no operator {printable(name)}", hint=f"one of {', '.join(OPERATORS)}"
        )
    hints = get_type_hints(OPERATORS[name].function)
    named = list(inspect.signature(OPERATORS[name].function).parameters)[1:]
    positional = [key for key in named if is_positional(name, key)]
    arguments: dict[str, object] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if not positional:
                raise UsageError(f"{name} takes no {printable(word)}: expected --option value")
            key = positional.pop(0)
            arguments[key] = _value(name, key, word, hints[key])
            continue
        option, has_value, value = word.removeprefix("--").partition("=")
        key = option.replace("-", "_")
        if not has_value and key.removeprefix("no_") in named and _is_flag(hints, key):
            arguments[key.removeprefix("no_")] = not key.startswith("no_")
            continue
        if key not in named:
            raise UsageError(
                f"{name} has no option --{printable(option)}",
                hint=f"hfgrow operators {name} says what it takes",
            )
        if not has_value:
            if not words:
                raise UsageError(f"{name}: --{option} needs a value")
            value = words.pop(0)
        arguments[key] = _value(name, key, value, hints[key])
    return name, arguments


def takes(name: str, argument: str) -> bool:
    """Say whether an operator has an argument."""
    return argument in inspect.signature(OPERATORS[name].function).parameters


def _is_flag(hints: dict[str, Any], key: str) -> bool:
    return bool in _options(hints[key.removeprefix("no_")])


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _value(name: str, key: str, text: str, hint: Any) -> object:
    """Return a value as its argument wants it."""
    options = _options(hint)
    for kind in (int, float):
        if kind in options:
            try:
                return kind(text)
            except ValueError:
                continue
    if {int, float}.intersection(options) and str not in options:
        option = key.replace("_", "-")
        raise UsageError(f"{name}: --{option} cannot be {printable(text)}; expected a number")
    return text
