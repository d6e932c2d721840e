"""The operators as stages of a recipe name them, and what each of them can be told there."""

import difflib
import inspect
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, create_model

from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.learn import LEARN, OUTCOMES, LearnArguments
from hfgrow.train.recipe_fields import Part, expected, number, whole

RECIPE_OPERATORS = (*OPERATORS, LEARN)
# What a stage of a run gives a learned growth: it learns from the text of the run.
_NOT_ASKED = ("maps", "sequence_length", *OUTCOMES)


def known_operator(value: str) -> str:
    """Return the name of an operator; refuse what is none, naming the nearest."""
    if value not in RECIPE_OPERATORS:
        near = difflib.get_close_matches(value, RECIPE_OPERATORS, n=1)
        told = f"; did you mean {near[0]}?" if near else f", such as {', '.join(RECIPE_OPERATORS)}"
        raise expected(f"an operator{told}")
    return value


def as_kind(value: Any, kind: Any) -> Any:
    """Return the number that a text such as 3e-4 or 1e3 means to an argument of some kind."""
    kinds = (kind, *get_args(kind))
    return whole(value) if int in kinds and float not in kinds else number(value)


def takes_seed(operator: object) -> bool:
    """Say whether this is the name of an operator that draws something at random."""
    return _takes(operator, "seed")


def hides(operator: object) -> bool:
    """Say whether this is the name of an operator with a mask that training opens."""
    return _takes(operator, "mask")


def _takes(operator: object, argument: str) -> bool:
    known = isinstance(operator, str) and operator in RECIPE_OPERATORS
    return known and argument in arguments_of(str(operator)).model_fields


@cache
def arguments_of(operator: str) -> type[BaseModel]:
    """Return the arguments of an operator, as its signature declares them."""
    function: Any = LearnArguments if operator == LEARN else OPERATORS[operator].function
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    if operator == LEARN:
        parameters = [one for one in parameters if one.name not in _NOT_ASKED]
    else:
        parameters = parameters[1:]
    fields: dict[str, Any] = {
        parameter.name: (
            hints[parameter.name],
            ... if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for parameter in parameters
    }
    return create_model(operator, __base__=Part, **fields)
