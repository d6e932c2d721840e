"""Means of neighbouring layers between them.

Source: Cao et al. 2025, "Progressive Depth Up-scaling via Optimal Transport",
https://arxiv.org/abs/2508.08011, the averaging that it starts from, without its alignment
"""

from hfgrow.errors import UsageError
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan, LayerSource


def average(base: GrowthPlan, *, layers: int | None = None) -> GrowthPlan:
    """Insert means of neighbouring layers between them.

    The `k = L - l` means are spread evenly: mean `j` stands behind layer
    `floor((2j + 1) * (l - 1) / (2k))` of the base and takes its config entries. Not function
    preserving.

    Args:
        base: The plan to grow, with `l` layers.
        layers: Target depth `L`, at most 2l - 1; left out, a mean stands in every gap: 2l - 1.

    Raises:
        UsageError: The base has a single layer, or the target is out of range.
    """
    if base.num_hidden_layers < 2:
        raise UsageError(
            "average needs at least 2 layers, the base has 1",
            hint="use progressive: hfgrow progressive MODEL --layers 12",
        )
    layer_map = between(base, layers, "average")
    return apply_layer_map(
        base, layer_map, operator="average", arguments={"layers": len(layer_map)}
    )


def between(base: GrowthPlan, layers: int | None, mode: str) -> list[LayerSource]:
    """Return all layers of a base in order, and between them some of a mode, spread evenly.

    Raises:
        UsageError: The target is no deeper than the base, or there are too few gaps.
    """
    num_layers = base.num_hidden_layers
    num_gaps = num_layers - 1
    target = num_layers + num_gaps if layers is None else layers
    if not num_layers < target <= num_layers + num_gaps:
        raise UsageError(
            f"--layers must be from {num_layers + 1} to {num_layers + num_gaps}, one layer in "
            f"a gap between {num_layers}, not {target}"
        )
    num_new = target - num_layers
    behind = {(2 * j + 1) * num_gaps // (2 * num_new) for j in range(num_new)}
    return [
        LayerSource(i, m)
        for i in range(num_layers)
        for m in (("copy", mode) if i in behind else ("copy",))
    ]
