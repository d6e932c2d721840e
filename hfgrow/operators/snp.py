"""Shrink and perturb: the padded base made smaller, noise as of a fresh model added.

Source: Mallik et al. 2024, "Warmstarting for Scaling Language Models",
https://arxiv.org/abs/2411.07340 (shrinking, zero padding and perturbation)
"""

from typing import Annotated

from hfgrow.operators.checks import check_amount, check_seed
from hfgrow.operators.paper_noise import perturbed
from hfgrow.operators.width_arguments import (
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    Seed,
    width_arguments,
)
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.width import WidthGrowth, apply_width
from hfgrow.plan.width_maps import padding_maps, target_widths


def snp(
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    shrink: Annotated[float, "The factor on the weights of the base, from 0 to 1."] = 0.4,
    seed: Seed = 0,
) -> GrowthPlan:
    """Pad with zeros, shrink, and add the noise of a fresh model (shrink and perturb).

    Every matrix becomes shrink W + N(0, sigma^2), sigma being that of a fresh model of the new
    width. Not function preserving.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("shrink", shrink)
    padded = apply_width(
        base,
        WidthGrowth(maps=padding_maps(widths), seed=seed),
        operator="snp",
        arguments=width_arguments(widths, g, shrink=shrink, seed=seed),
        preserves_function=False,
    )
    return perturbed(padded, keep=shrink, amount=1.0, key=f"{seed}/snp")
