"""Net2Net: every width filled with copies of units drawn at random.

Source: Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer",
https://arxiv.org/abs/1511.05641, Sec. 2.1 (Net2WiderNet)
"""

from hfgrow.operators.checks import check_amount, check_seed
from hfgrow.operators.width_arguments import (
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    NoiseAmount,
    Seed,
    width_arguments,
)
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.width import WidthGrowth, apply_width
from hfgrow.plan.width_maps import copying_maps, drawn, target_widths


def net2net(
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    noise: NoiseAmount = 0.1,
    seed: Seed = 0,
) -> GrowthPlan:
    """Copy units drawn at random, split evenly, with a little noise (Net2WiderNet).

    A unit drawn n - 1 times has n copies, each contributing 1/n. Heads are copied whole. Function
    preserving.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths, choose=drawn(seed)), noise=noise, seed=seed),
        operator="net2net",
        arguments=width_arguments(widths, g, noise=noise, seed=seed),
        preserves_function=True,
    )
