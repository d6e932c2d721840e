"""HyperCloning: every width tiled, every copy the same.

Source: Samragh et al. 2024, "Scaling Smart: Accelerating Large Language Model Pre-Training with
Small Model Initialization", https://arxiv.org/abs/2409.12903, Sec. 3 (symmetric variant)
"""

from hfgrow.operators.width_arguments import (
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    check_multiples,
    width_arguments,
)
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.width import WidthGrowth, apply_width
from hfgrow.plan.width_maps import copying_maps, target_widths


def hyperclone(
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
) -> GrowthPlan:
    """Tile every width: n copies of each unit, each contributing 1/n (HyperCloning).

    Function preserving. The copies stay equal in training, for every gradient is the same: use
    hyperclone-noisy, unless something else, such as dropout, tells them apart.

    Raises:
        UsageError: No target, one that is no multiple of the base's, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_multiples("hyperclone", widths)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths)),
        operator="hyperclone",
        arguments=width_arguments(widths, g),
        preserves_function=True,
    )
