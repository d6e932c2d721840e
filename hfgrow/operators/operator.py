"""What the table of operators says of each."""

from collections.abc import Callable
from dataclasses import dataclass

from hfgrow.plan.plan import GrowthPlan


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
