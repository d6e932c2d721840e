"""The growth operators: one file each, one row in the table of their axis.

An operator is a typed function from plan to plan. Its signature makes its subcommand: arguments
without a default are positional, the others are options; their help is what their annotation says,
or the `Args` section.
"""

import inspect
from collections.abc import Mapping
from itertools import islice
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hfgrow.errors import UsageError, printable
from hfgrow.plan.operators.operator import Operator
from hfgrow.plan.operators.tables import DEPTH, WEIGHTS, WIDTH
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import leaves

# What one growth may hold: recipes nest with the steps, and some read a tensor several times.
MAX_STEPS = 100
_MAX_LEAVES = 4096

OPERATORS: dict[str, Operator] = {row.name: row for row in (*DEPTH, *WIDTH, *WEIGHTS)}


def apply(plan: GrowthPlan, name: str, arguments: Mapping[str, object]) -> GrowthPlan:
    """Apply an operator by name, its arguments checked against its signature.

    Args:
        plan: The plan to grow.
        name: A name in the table.
        arguments: By name, as `--help` shows them with `_` for `-`.

    Raises:
        UsageError: No such operator or argument, a missing one, or a value that does not fit.
    """
    if name not in OPERATORS:
        raise UsageError(
            f"there is no operator {printable(name)}", hint=f"one of {', '.join(OPERATORS)}"
        )
    function = OPERATORS[name].function
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    for key, value in arguments.items():
        if key not in {parameter.name for parameter in parameters}:
            raise UsageError(f"{name} has no argument {printable(key)}")
        if not _fits(value, hints[key]):
            raise UsageError(
                f"{name}: {key} cannot be {printable(repr(value))}",
                hint=f"hfgrow operators {name} says what it takes",
            )
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and parameter.name not in arguments:
            raise UsageError(f"{name} needs the argument {parameter.name}")
    grown = function(plan, **arguments)
    for tensor in grown.tensors.values():
        if next(islice(leaves(tensor.recipe), _MAX_LEAVES, None), None) is not None:
            raise UsageError(
                f"{name} would read more than {_MAX_LEAVES} tensors for one",
                hint="write the model out after the steps before, and grow that",
            )
    return grown


def _fits(value: object, hint: Any) -> bool:
    """Say whether a value is of a type; a whole number is a float too, a bool is only a bool."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)
