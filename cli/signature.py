"""From an operator's signature to its arguments on the command line, with their help."""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from hfgrow.lineage.describe import is_positional
from hfgrow.plan.operators.operator import Operator


def own_parameters(operator: Operator) -> dict[str, inspect.Parameter]:
    """Return the operator's arguments, the plan excepted, as command-line parameters."""
    helps = argument_helps(operator.function)
    hints = get_type_hints(operator.function)
    found = {}
    for parameter in list(inspect.signature(operator.function).parameters.values())[1:]:
        name, text, hint = parameter.name, helps[parameter.name], hints[parameter.name]
        option = name.replace("_", "-")
        if is_positional(operator.name, name):
            declared: Any = typer.Argument(metavar=name.upper(), help=text)
        elif bool in (hint, *get_args(hint)):
            declared = typer.Option(f"--{option}/--no-{option}", help=text)
        else:
            declared = typer.Option(f"--{option}", help=text)
        found[name] = parameter_of(name, annotated(hint, declared), parameter.default)
    return found


def argument_helps(function: Callable[..., object]) -> dict[str, str]:
    """Return the help of each argument, the plan excepted.

    It stands in the `Args` section of a Google docstring, or, where operators share an argument,
    in its annotation.
    """
    section = re.search(
        r"^Args:\n(.*?)(?=^\S|\Z)", inspect.getdoc(function) or "", re.DOTALL | re.MULTILINE
    )
    entries = re.findall(
        r"^    (\w+): (.*?)(?=^    \w+: |\Z)",
        section[1] if section else "",
        re.DOTALL | re.MULTILINE,
    )
    told = {name: " ".join(text.split()) for name, text in entries}
    helps = {}
    hints = get_type_hints(function, include_extras=True)
    for name in list(inspect.signature(function).parameters)[1:]:
        shared = get_args(hints[name])[1] if get_origin(hints[name]) is Annotated else ""
        helps[name] = told.get(name) or str(shared)
    return helps


def annotated(hint: Any, declared: Any) -> Any:
    """Return `Annotated[hint, declared]` for a type that is known only when this runs."""
    subscript: Any = Annotated
    return subscript[hint, declared]


def parameter_of(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return a parameter for a signature that is made when this runs."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
