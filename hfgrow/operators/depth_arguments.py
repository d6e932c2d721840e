"""What the depth operators are told alike: how deep to grow, and in groups of how many layers."""

from hfgrow.errors import UsageError
from hfgrow.plan.depth import check_num_layers
from hfgrow.plan.plan import GrowthPlan


def target_layers(base: GrowthPlan, g: int | None, layers: int | None) -> int:
    """Return the number of layers asked for by a growth factor or a target depth.

    Raises:
        UsageError: Both or neither were given, or the target is not deeper than the base.
    """
    num_layers = base.num_hidden_layers
    if (g is None) == (layers is None):
        given = "both were given" if g is not None else "neither was given"
        raise UsageError(
            f"the target depth is either a growth factor --g or --layers; {given}", hint="try --g 4"
        )
    if g is not None:
        if g < 2:
            raise UsageError(f"growth factor g must be at least 2, not {g}")
        layers = g * num_layers
    assert layers is not None
    if layers <= num_layers:
        raise UsageError(
            f"--layers {layers} is not deeper than the base, which has {num_layers} layers",
            hint=f"try --layers {2 * num_layers}",
        )
    check_num_layers(layers)
    return layers


def target_arguments(g: int | None, layers: int | None) -> dict[str, object]:
    """Return the arguments of `target_layers` as they are recorded."""
    return {"g": g} if g is not None else {"layers": layers}


def check_divides(base: GrowthPlan, option: str, size: int | None) -> int:
    """Return the size of the groups that the layers fall into.

    Raises:
        UsageError: It is not given, or does not divide the number of layers.
    """
    num_layers = base.num_hidden_layers
    if size is None or size < 1 or num_layers % size:
        fitting = ", ".join(str(k) for k in range(1, num_layers + 1) if num_layers % k == 0)
        wrong = "is not given" if size is None else f"{size} does not divide them"
        raise UsageError(
            f"{option} must divide the {num_layers} layers of the base ({fitting}), but {wrong}"
        )
    return size
