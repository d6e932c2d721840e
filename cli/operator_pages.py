"""The command that lists and explains the operators, and an example of each."""

import re
from typing import Any

import typer

from hfgrow.errors import UsageError, printable
from hfgrow.lineage.describe import describe_step
from hfgrow.plan.operators import ALL_OPERATORS, OPERATORS

from . import options
from .terminal import Console, broken, near

_EXAMPLES = """\
hfgrow operators
hfgrow operators stack"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("operators", epilog=_EXAMPLES)(operators)


# Values for an example; an operator takes the first of these that it has.
_TARGETS = {"g": 2, "block": 2, "factor": 2, "amount": 0.2, "exponent": 0.5, "experts": 8}

# What makes sense behind another operator only.
_OF_OPERATORS = {"branch-scale": "hfgrow stack MODEL --g 4 --branch-scale 0.5"}


def operators(
    name: options.OperatorArgument = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List the growth operators, or explain one."""
    console = Console(as_json=json, quiet=quiet)
    if name is None:
        lines = broken(_table(), console.width, behind=max(map(len, OPERATORS)) + 7)
        console.result("\n".join(lines), {"operators": [_row(key) for key in OPERATORS]})
        return
    if name not in OPERATORS:
        hint = near(name, OPERATORS) or "hfgrow operators lists them"
        if name in ALL_OPERATORS:
            hint = f"{name} needs text and has a command of its own: hfgrow {name} --help"
        raise UsageError(f"there is no operator {printable(name)}", hint=hint)
    facts, arguments = _explained(name)
    lines = broken(facts, console.width, behind=21) + broken(arguments, console.width, behind=6)
    console.result("\n".join(lines), _row(name))


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


def _explained(name: str) -> tuple[list[str], list[str]]:
    """Return what an operator is, and its arguments below that."""
    row = OPERATORS[name]
    facts = [
        f"{row.name}: {row.summary}",
        f"axis                 {row.axis}",
        f"formula              {row.formula}",
        f"function preserving  {_yes(row.preserves_function)}",
        f"paper                {row.paper}",
        f"example              {example_of(name)}",
    ]
    arguments = _arguments(name)
    lines = ["arguments"] if arguments else []
    for argument in arguments.values():
        default = argument["default"]
        shown = "" if default is None else f"  [default: {default}]"
        lines.append(f"  {argument['typed']}: {argument['help']}{shown}")
    return facts, lines


def _row(name: str) -> dict[str, Any]:
    row = OPERATORS[name]
    return {
        "name": row.name,
        "axis": row.axis,
        "preserves_function": row.preserves_function,
        "summary": row.summary,
        "formula": row.formula,
        "paper": row.paper,
        "example": example_of(name),
        "arguments": _arguments(name),
    }


def _arguments(name: str) -> dict[str, dict[str, Any]]:
    """Return how each argument is typed, its help, and its default; None if it has none."""
    return {
        parameter.name: {
            "typed": options.typed(parameter),
            "help": parameter.help,
            "default": parameter.default,
            "required": parameter.is_required,
        }
        for parameter in OPERATORS[name].parameters
    }


def example_of(name: str) -> str:
    """Return a command with the arguments of an example."""
    if name in _OF_OPERATORS:
        return _OF_OPERATORS[name]
    operator, _, more = describe_step(name, example_arguments(name)).partition(" ")
    return f"hfgrow {operator} MODEL {more}".rstrip()


def example_arguments(name: str) -> dict[str, object]:
    """Return what must be given, or else a target, with a value of the help or ours."""
    row = OPERATORS[name]
    wanted = [parameter for parameter in row.parameters if parameter.is_required]
    wanted = wanted or [found for key in _TARGETS if (found := row.parameter(key))][:1]
    arguments: dict[str, object] = {}
    for parameter in wanted:
        told = re.search(r"such as ([^\s,;]+)", parameter.help)
        key = parameter.name
        arguments[key] = told[1] if told else _TARGETS.get(key, key.upper())
    return arguments


def _yes(value: bool) -> str:
    return "yes" if value else "no"
