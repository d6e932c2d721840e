"""Options that add a step to a growth: what often goes with it, without a file of steps."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hfgrow.errors import UsageError
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Operator

from .signature import parameter_of

Step = tuple[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class ExtraStep:
    """An option that stands for a step.

    Attributes:
        option: Its name, as in Python.
        annotation: Its type and help.
        operator: The step.
        argument: The step's argument that the option's value is; empty for a flag.
        axes: The operators that have the option, by their axis.
        first: Whether the step comes before the growth, not behind it.
        has_seed: Whether `--seed` goes with it.
    """

    option: str
    annotation: Any
    operator: str
    argument: str
    axes: tuple[str, ...]
    first: bool = False
    has_seed: bool = False


EXTRA_STEPS = (
    ExtraStep(
        "untie",
        Annotated[
            bool, typer.Option("--untie", help="First give tied embeddings a head of their own.")
        ],
        operator="untie",
        argument="",
        axes=("width",),
        first=True,
    ),
    ExtraStep(
        "branch_scale",
        Annotated[
            float | None,
            typer.Option("--branch-scale", metavar="A", help="Then scale branches by (l / L)^A."),
        ],
        operator="branch-scale",
        argument="exponent",
        axes=("depth",),
    ),
    ExtraStep(
        "noise_paper",
        Annotated[
            float | None,
            typer.Option(
                "--noise-paper", metavar="A", help="Then W <- (1 - A) W + A eps, drawn by --seed."
            ),
        ],
        operator="paper-noise",
        argument="amount",
        axes=("depth", "width"),
        has_seed=True,
    ),
)
_SEED = Annotated[int | None, typer.Option("--seed", help="Seeds --noise-paper.  [default: 0]")]


def extra_parameters(
    operator: Operator, own: Mapping[str, inspect.Parameter]
) -> dict[str, inspect.Parameter]:
    """Return the options of the extra steps that go with an operator."""
    found = {}
    for extra in _offered(operator):
        default = None if extra.argument else False
        found[extra.option] = parameter_of(extra.option, extra.annotation, default)
        if extra.has_seed and "seed" not in own:
            found["seed"] = parameter_of("seed", _SEED, None)
    return found


def with_extra_steps(
    operator: Operator, arguments: dict[str, object], values: Mapping[str, Any]
) -> list[Step]:
    """Return the steps of a growth, the extra ones in their places.

    Raises:
        UsageError: There is a seed, and nothing that it seeds.
    """
    before: list[Step] = []
    after: list[Step] = []
    seed = values.get("seed")
    for extra in _offered(operator):
        value = values[extra.option]
        if value is None or value is False:
            continue
        step: dict[str, object] = {extra.argument: value} if extra.argument else {}
        if extra.has_seed and seed is not None:
            step["seed"] = seed
        (before if extra.first else after).append((extra.operator, step))
    seeded = "seed" in arguments or any("seed" in step for _, step in after)
    if seed is not None and not seeded:
        raise UsageError("--seed is for --noise-paper", hint="add --noise-paper 0.2")
    return [*before, (operator.name, arguments), *after]


def _offered(operator: Operator) -> list[ExtraStep]:
    """Return the extra steps that exist and go with an operator, which is none of them itself."""
    if operator.name in {extra.operator for extra in EXTRA_STEPS}:
        return []
    return [
        extra
        for extra in EXTRA_STEPS
        if extra.operator in OPERATORS and operator.axis in extra.axes
    ]
