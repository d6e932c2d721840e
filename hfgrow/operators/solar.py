"""SOLAR's depth up-scaling: two copies that overlap.

Source: Kim et al. 2023, "SOLAR 10.7B: Scaling Large Language Models with Simple yet Effective Depth
Up-Scaling", https://arxiv.org/abs/2312.15166, Sec. 2
"""

from hfgrow.errors import UsageError
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan


def solar(base: GrowthPlan, *, overlap: int = 8) -> GrowthPlan:
    """Stack the base on itself without the layers around the seam.

    The last `overlap` layers of the first copy and the first `overlap` of the second are left out:
    0 .. l-overlap-1, then overlap .. l-1. Not function preserving.

    Args:
        base: The plan to grow, with `l` layers.
        overlap: Layers left out on each side of the seam (SOLAR took 8 of 32), from 0 to below l/2.

    Raises:
        UsageError: The overlap is negative or leaves no growth.
    """
    num_layers = base.num_hidden_layers
    if overlap < 0 or 2 * overlap >= num_layers:
        raise UsageError(
            f"overlap must be from 0 to below half of the {num_layers} layers, not {overlap}",
            hint=f"try --overlap {num_layers // 4}",
        )
    layer_map = [*range(num_layers - overlap), *range(overlap, num_layers)]
    return apply_layer_map(base, layer_map, operator="solar", arguments={"overlap": overlap})
