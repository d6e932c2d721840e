"""The growth operators, by name, and `apply`: a step told by name and arguments.

An operator is one function with a decorator, in the file of its kind, and is found there.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.plan.operators import copying, inserting, learn, padding, stacking, upcycling, weights
from hfgrow.plan.operators.operator import Operator
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import leaves

# What one growth may hold: recipes nest with the steps, and some read a tensor several times.
MAX_STEPS = 100
_MAX_LEAVES = 4096

# In the order in which tables list what stands there, axis by axis.
_FILES = (stacking, inserting, copying, padding, upcycling, weights, learn)
_AXES = ("depth", "width", "experts", "weights", "depth and width")


def _found() -> dict[str, Operator[...]]:
    rows: list[Operator[...]] = []
    for row in (value for file in _FILES for value in vars(file).values()):
        if isinstance(row, Operator):
            names = [one.name for one in rows]
            assert row.name not in names, f"there are two operators {row.name}"
            rows.insert(names.index(row.after) + 1 if row.after else len(rows), row)
    return {row.name: row for row in sorted(rows, key=lambda one: _AXES.index(one.axis))}


# Every operator that a step can name.
ALL_OPERATORS = _found()
# Those that a step says all about, so that there are commands and files of steps for them.
OPERATORS: dict[str, Operator[...]] = {
    name: row for name, row in ALL_OPERATORS.items() if not row.has_command
}


def adds_experts(name: str) -> bool:
    """Say whether a recorded step makes experts of the MLPs, which is another family."""
    row = ALL_OPERATORS.get(name)
    return row is not None and row.axis == "experts"


def unties(name: str) -> bool:
    """Say whether a recorded step gives the head weights of its own."""
    row = ALL_OPERATORS.get(name)
    return row is not None and row.unties


def apply(
    plan: GrowthPlan,
    name: str,
    arguments: Mapping[str, object],
    open_maps: learn.OpenMaps | None = None,
) -> GrowthPlan:
    """Apply an operator by name, its arguments checked against its parameters.

    Args:
        plan: The plan to grow.
        name: A name in the table.
        arguments: By name, as `--help` shows them with `_` for `-`.
        open_maps: Opens the file of maps, for an operator that needs them; without it there is a
            plan to be shown, not written.

    Raises:
        UsageError: No such operator or argument, a missing one, or a value that does not fit.
    """
    if name not in ALL_OPERATORS:
        near = get_close_matches(name, ALL_OPERATORS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"there is no operator {printable(name)}{meant}",
            hint=f"one of {', '.join(OPERATORS)}",
        )
    row = ALL_OPERATORS[name]
    row.check(arguments)
    given: dict[str, Any] = dict(arguments)
    if row.needs_maps:
        # The file of maps bounds what they read.
        return row(plan, open_maps=open_maps, **given)
    grown = row(plan, **given)
    for tensor in grown.tensors.values():
        if next(islice(leaves(tensor.recipe), _MAX_LEAVES, None), None) is not None:
            raise UsageError(
                f"{name} would read more than {_MAX_LEAVES} tensors for one",
                hint="write the model out after the steps before, and grow that",
            )
    return grown
