"""The growth operators: one file each, one line in the table here.

An operator is a typed function from plan to plan. Its signature makes its subcommand: arguments
without a default are positional, the others are options, and the `Args` section is their help.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hfgrow.errors import UsageError, printable
from hfgrow.operators.interpolate import interpolate
from hfgrow.operators.partial import partial
from hfgrow.operators.solar import solar
from hfgrow.operators.stack import stack
from hfgrow.plan import GrowthPlan


@dataclass(frozen=True, slots=True)
class Operator:
    """A row of the table.

    Attributes:
        name: The subcommand.
        function: Plan to plan.
        axis: `depth` or `width`.
        preserves_function: Whether the grown model computes what the base does.
        formula: The layer map, 0-based, `l` layers to `L`.
        paper: The work it comes from, with its address.
        tags: What the model card says of it.
    """

    name: str
    function: Callable[..., GrowthPlan]
    axis: str
    preserves_function: bool
    formula: str
    paper: str
    tags: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").partition("\n")[0]


_STACKING = "Du et al. 2024, Stacking Your Transformers, https://arxiv.org/abs/2405.15319"
_SOLAR = "Kim et al. 2023, SOLAR 10.7B, https://arxiv.org/abs/2312.15166"
_DEPTH = ("depth-upscaling",)

OPERATORS: dict[str, Operator] = {
    row.name: row
    for row in (
        Operator(
            "stack", stack, "depth", False, "o[i] = i mod l", _STACKING, (*_DEPTH, "stacking")
        ),
        Operator(
            "interpolate", interpolate, "depth", False, "o[i] = floor(i l / L)", _STACKING, _DEPTH
        ),
        Operator(
            "partial",
            partial,
            "depth",
            False,
            "o = A ++ B * r ++ C, the layers cut in runs A B C",
            _STACKING,
            (*_DEPTH, "stacking"),
        ),
        Operator("solar", solar, "depth", False, "o = 0 .. l-n-1 ++ n .. l-1", _SOLAR, _DEPTH),
    )
}


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
            raise UsageError(f"{name}: {key} cannot be {printable(repr(value))}")
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and parameter.name not in arguments:
            raise UsageError(f"{name} needs the argument {parameter.name}")
    return function(plan, **arguments)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    return isinstance(value, hint) and not isinstance(value, bool)
