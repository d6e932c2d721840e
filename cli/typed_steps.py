"""A growth as one option of a command says it: `--op 'stack --g 2'`."""

import shlex

from hfgrow.errors import UsageError, printable
from hfgrow.growth.steps import Step, nearest_operator
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Parameter


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
        raise UsageError(f"there is no operator {printable(name)}", hint=nearest_operator(name))
    named = {parameter.name: parameter for parameter in OPERATORS[name].parameters}
    positional = [key for key, parameter in named.items() if parameter.is_positional]
    arguments: dict[str, object] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if not positional:
                raise UsageError(f"{name} takes no {printable(word)}: expected --option value")
            key = positional.pop(0)
            arguments[key] = _value(name, named[key], word)
            continue
        option, has_value, value = word.removeprefix("--").partition("=")
        key = option.replace("-", "_")
        flag = named.get(key.removeprefix("no_"))
        if not has_value and flag is not None and bool in flag.types:
            arguments[flag.name] = not key.startswith("no_")
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
        arguments[key] = _value(name, named[key], value)
    return name, arguments


def _value(name: str, parameter: Parameter, text: str) -> object:
    """Return a value as its argument wants it."""
    options = parameter.types
    for kind in (int, float):
        if kind in options:
            try:
                return kind(text)
            except ValueError:
                continue
    if {int, float}.intersection(options) and str not in options:
        option = parameter.name.replace("_", "-")
        raise UsageError(f"{name}: --{option} cannot be {printable(text)}; expected a number")
    return text
