"""What the table of operators says of each.

Checks of numbers that operators are told.

What the depth operators are told alike: how deep to grow, and in groups of how many layers.

What the width operators are told alike: how wide to grow, noise and seed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from hfgrow.errors import UsageError, argument, printable
from hfgrow.plan.depth import check_num_layers
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.width_maps import Widths


@dataclass(frozen=True, slots=True)
class Operator:
    """A row of the table.

    Attributes:
        name: The subcommand.
        function: Plan to plan.
        axis: `depth`, `width`, or `weights` if no size changes.
        preserves_function: Whether the grown model computes what the base does, with the default
            options; what an applied step promises stands in its `GrowthStep`.
        formula: In depth the layer map, 0-based, `l` layers to `L`; in width the maps of the axes,
            `d` units to `D`, `n` copies of a unit.
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


MAX_SEED = (1 << 32) - 1


def check_amount(name: str, value: float) -> None:
    """Refuse an amount that is no number from 0 to 1.

    Raises:
        UsageError: It is not.
    """
    if not 0 <= value <= 1:
        raise UsageError(f"{argument(name)} must be from 0 to 1, not {printable(value, 40)}")


def check_seed(seed: int) -> None:
    """Refuse a seed that other programs could not read back.

    Raises:
        UsageError: It is negative or takes more than 32 bits.
    """
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(
            f"{argument('seed')} must be from 0 to {MAX_SEED}, not {printable(seed, 40)}"
        )


def target_layers(base: GrowthPlan, g: int | None, layers: int | None) -> int:
    """Return the number of layers asked for by a growth factor or a target depth.

    Raises:
        UsageError: Both or neither were given, or the target is not deeper than the base.
    """
    num_layers = base.num_hidden_layers
    if (g is None) == (layers is None):
        given = "both were given" if g is not None else "neither was given"
        raise UsageError(
            f"the target depth is either a growth factor {argument('g')} or "
            f"{argument('layers')}; {given}",
            hint=f"try {argument('g', 4)}",
        )
    if g is not None:
        if g < 2:
            raise UsageError(f"growth factor g must be at least 2, not {g}")
        layers = g * num_layers
    assert layers is not None
    if layers <= num_layers:
        raise UsageError(
            f"{argument('layers', layers)} is not deeper than the base, which has {num_layers} "
            f"layers",
            hint=f"try {argument('layers', 2 * num_layers)}",
        )
    check_num_layers(layers)
    return layers


def target_arguments(g: int | None, layers: int | None) -> dict[str, object]:
    """Return the arguments of `target_layers` as they are recorded."""
    return {"g": g} if g is not None else {"layers": layers}


def check_divides(base: GrowthPlan, name: str, size: int | None) -> int:
    """Return the size of the groups that the layers fall into.

    Raises:
        UsageError: It is not given, or does not divide the number of layers.
    """
    num_layers = base.num_hidden_layers
    if size is None or size < 1 or num_layers % size:
        fitting = ", ".join(str(k) for k in range(1, num_layers + 1) if num_layers % k == 0)
        wrong = "is not given" if size is None else f"{size} does not divide them"
        raise UsageError(
            f"{argument(name)} must divide the {num_layers} layers of the base ({fitting}), but "
            f"{wrong}"
        )
    return size


GrowthFactor = Annotated[
    int | None,
    "Growth factor of every width: hidden_size, intermediate_size and both kinds of heads.",
]
HiddenSize = Annotated[int | None, "Target hidden_size, the width of the residual stream."]
IntermediateSize = Annotated[int | None, "Target intermediate_size, the neurons of each MLP."]
Heads = Annotated[
    int | None,
    "Target num_attention_heads, the query heads; without grouped queries key-value heads follow.",
]
KeyValueHeads = Annotated[int | None, "Target num_key_value_heads."]
NoiseAmount = Annotated[
    float,
    "Noise on the copies, relative to the rows it is added to, which cancels in what they compute; "
    "0 leaves copies that training cannot tell apart.",
]
Seed = Annotated[int, "Seeds what is random; the same seed gives the same bytes."]

_TARGETS = {"hidden": "hidden_size", "ffn": "ffn", "heads": "heads", "kv_heads": "kv_heads"}


def width_arguments(widths: Widths, g: int | None, **more: object) -> dict[str, object]:
    """Return the record of a width operator's arguments, every default spelt out."""
    if g is not None:
        return {"g": g, **more}
    targets = {key: widths.after[axis] for axis, key in _TARGETS.items() if widths.grows(axis)}
    return {**targets, **more}


def check_multiples(operator: str, widths: Widths) -> None:
    """Refuse widths that are no multiples of the base's.

    Raises:
        UsageError: One is not.
    """
    for axis, key in _TARGETS.items():
        if widths.after[axis] % widths.before[axis]:
            raise UsageError(
                f"{operator} copies whole multiples; {key} {widths.after[axis]} is none of "
                f"{widths.before[axis]}",
                hint="hyperclone-noisy takes any width",
            )


# Any reader of JSON has the integers below exactly.
_MAX_ARGUMENT = 1 << 53
_ARGUMENT = re.compile(r"[\w.,+:*\[\]-]{1,4000}", re.ASCII)


def is_argument(value: object) -> bool:
    """Say whether a value can be recorded as an argument of an operator: finite and bounded."""
    match value:
        case bool():
            return True
        case int() | float():
            return abs(value) < _MAX_ARGUMENT
        case str():
            return bool(_ARGUMENT.fullmatch(value))
    return False
