"""The command `hfgrow operators`: the table of growth operators, or one of them explained."""

import inspect
import re
from typing import Annotated, Any

import typer

from hfgrow.errors import UsageError, printable
from hfgrow.lineage.describe import describe_step, is_positional
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.learn import LEARN

from . import options
from .output import Console
from .signature import argument_helps

# Values for an example; an operator takes the first of these that it has.
_TARGETS = {"g": 2, "block": 2, "factor": 2, "amount": 0.2, "exponent": 0.5}

# What makes sense behind another operator only.
_EXAMPLES = {"branch-scale": "hfgrow stack MODEL --g 4 --branch-scale 0.5"}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("operators", rich_help_panel="Look")(operators)


def operators(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One operator.")] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List the growth operators, or explain one."""
    console = Console(as_json=json, quiet=quiet)
    if name is None:
        console.result("\n".join(_table()), {"operators": [_row(key) for key in OPERATORS]})
        return
    if name not in OPERATORS:
        hint = f"one of {', '.join(OPERATORS)}"
        if name == LEARN:
            hint = "learn needs text and has a command of its own: hfgrow learn --help"
        raise UsageError(f"there is no operator {printable(name)}", hint=hint)
    console.result("\n".join(_explained(name)), _row(name))


def _table() -> list[str]:
    width = max(map(len, OPERATORS))
    lines = []
    for axis in dict.fromkeys(row.axis for row in OPERATORS.values()):
        lines.append(f"{axis:{width}}  function preserving")
        lines += [
            f"{row.name:{width}}  {_yes(row.preserves_function):3}  {row.summary}"
            for row in OPERATORS.values()
            if row.axis == axis
        ]
        lines.append("")
    return lines[:-1]


def _explained(name: str) -> list[str]:
    row = OPERATORS[name]
    lines = [
        f"{row.name}: {row.summary}",
        f"axis                 {row.axis}",
        f"formula              {row.formula}",
        f"function preserving  {_yes(row.preserves_function)}",
        f"paper                {row.paper}",
        f"example              {_example(name)}",
    ]
    arguments = _arguments(name)
    if arguments:
        lines.append("arguments")
    for argument in arguments.values():
        default = argument["default"]
        shown = "" if default is None else f"  [default: {default}]"
        lines.append(f"  {argument['typed']}: {argument['help']}{shown}")
    return lines


def _row(name: str) -> dict[str, Any]:
    row = OPERATORS[name]
    return {
        "name": row.name,
        "axis": row.axis,
        "preserves_function": row.preserves_function,
        "summary": row.summary,
        "formula": row.formula,
        "paper": row.paper,
        "example": _example(name),
        "arguments": _arguments(name),
    }


def _arguments(name: str) -> dict[str, dict[str, Any]]:
    """Return how each argument is typed, its help, and its default; None if it has none."""
    function = OPERATORS[name].function
    parameters = inspect.signature(function).parameters
    found = {}
    for key, text in argument_helps(function).items():
        default = parameters[key].default
        found[key] = {
            "typed": key.upper() if is_positional(name, key) else f"--{key.replace('_', '-')}",
            "help": text,
            "default": None if default is inspect.Parameter.empty else default,
            "required": default is inspect.Parameter.empty,
        }
    return found


def _example(name: str) -> str:
    """Return a command: what must be given, or else a target, with a value of the help or ours."""
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    helps = argument_helps(OPERATORS[name].function)
    parameters = inspect.signature(OPERATORS[name].function).parameters
    wanted = [key for key in helps if parameters[key].default is inspect.Parameter.empty]
    wanted = wanted or [key for key in _TARGETS if key in helps][:1]
    arguments: dict[str, object] = {}
    for key in wanted:
        told = re.search(r"such as ([^\s,;]+)", helps[key])
        arguments[key] = told[1] if told else _TARGETS.get(key, key.upper())
    operator, _, more = describe_step(name, arguments).partition(" ")
    return f"hfgrow {operator} MODEL {more}".rstrip()


def _yes(value: bool) -> str:
    return "yes" if value else "no"
