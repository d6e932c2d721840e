"""MIDAS: the middle block of layers twice.

Source: Saunshi et al. 2024, "On the Inductive Bias of Stacking Towards Improving Reasoning",
https://arxiv.org/abs/2409.19044, Sec. 3
"""

from hfgrow.operators.depth_arguments import check_divides
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan


def midas(base: GrowthPlan, *, block: int | None = None) -> GrowthPlan:
    """Repeat the middle block of layers in place.

    Of `n = l / b` blocks, counted from 1, block `m = ceil(n / 2)` stands twice:
    0 .. m*b-1, then (m-1)*b .. l-1. One stage of gradual middle stacking. Not function
    preserving.

    Args:
        base: The plan to grow, with `l` layers.
        block: Layers in a block, `b`; divides the number of layers. Needed: the paper keeps it the
            same through all stages, so it depends on the first.

    Raises:
        UsageError: No block, or one that does not divide the number of layers.
    """
    num_layers, size = base.num_hidden_layers, check_divides(base, "--block", block)
    middle = (num_layers // size + 1) // 2
    layer_map = [*range(middle * size), *range((middle - 1) * size, num_layers)]
    return apply_layer_map(base, layer_map, operator="midas", arguments={"block": size})
