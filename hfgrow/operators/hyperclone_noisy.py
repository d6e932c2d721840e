"""Noisy HyperCloning: copies told apart by noise that cancels in what they compute.

Source: Samragh et al. 2024, "Scaling Smart", https://arxiv.org/abs/2409.12903, Sec. 3 (noisy
variant); any width instead of whole multiples by the isometric lift
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
from hfgrow.plan.width_maps import copying_maps, target_widths


def hyperclone_noisy(
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    noise: NoiseAmount = 0.3,
    seed: Seed = 0,
) -> GrowthPlan:
    """Copy every unit evenly and tell the copies apart by noise that cancels (noisy HyperCloning).

    Two copies of a column w become w/2 + eta and w/2 - eta. Any width, also fractions of the
    base's. Function preserving: the advised way to grow in width.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths), noise=noise, seed=seed),
        operator="hyperclone-noisy",
        arguments=width_arguments(widths, g, noise=noise, seed=seed),
        preserves_function=True,
    )
