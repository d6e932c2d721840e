"""Split: every width filled with copies that share what their source contributed.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3.1 and
App. A, G_direct in width; the isometric lift of the residual stream makes it exact under RMSNorm,
which the paper's form is not (its App. A.3)
"""

from typing import Annotated

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


def split(
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    even: Annotated[bool, "Let copies contribute evenly."] = False,
    noise: NoiseAmount = 0.3,
    seed: Seed = 0,
) -> GrowthPlan:
    """Copy every unit and split what it contributes between the copies (G_direct in width).

    Copy c of n contributes c / (1 + ... + n) of what its source did, or 1/n with --even. Function
    preserving.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    growth = WidthGrowth(maps=copying_maps(widths, even=even), noise=noise, seed=seed)
    return apply_width(
        base,
        growth,
        operator="split",
        arguments=width_arguments(widths, g, even=even, noise=noise, seed=seed),
        preserves_function=True,
    )
