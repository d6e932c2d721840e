"""LEMON: copies that share unevenly, and zeros where a whole copy does not fit.

Source: Wang et al. 2023, "LEMON: Lossless Model Expansion", https://arxiv.org/abs/2310.07999,
Sec. 4 (RMSNorm: zero expansion of the remainder)
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
from hfgrow.plan.axes import FRESH
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.width import WidthGrowth, apply_width, random_in
from hfgrow.plan.width_maps import copying_maps, target_widths


def lemon(
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    noise: NoiseAmount = 0.0,
    seed: Seed = 0,
) -> GrowthPlan:
    """Copy every unit, split unevenly, and leave the rest of the stream at zero (LEMON).

    The residual stream holds whole copies and, behind them, zeros that random weights read; neurons
    and heads are copied.
    Copy c of n contributes c / (1 + ... + n). Function preserving.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    d, wide = widths.before["hidden"], widths.after["hidden"]
    whole = wide // d * d
    sources = [i % d if i < whole else FRESH for i in range(wide)]
    maps = copying_maps(widths, even=False, hidden_sources=sources)
    return apply_width(
        base,
        WidthGrowth(maps=maps, noise=noise, seed=seed, fresh=random_in),
        operator="lemon",
        arguments=width_arguments(widths, g, noise=noise, seed=seed),
        preserves_function=True,
    )
