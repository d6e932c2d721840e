"""bert2BERT, function preserving: every width filled with copies of units drawn at random.

Source: Chen et al. 2022, "bert2BERT: Towards Reusable Pretrained Language Models",
https://arxiv.org/abs/2110.07143, Sec. 3.2 (function preserving initialisation)
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


def bert2bert_fpi(
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
    """Copy units drawn at random, split evenly, without noise (bert2BERT FPI).

    As net2net, heads copied whole, the noise left out as in the paper. Function preserving.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths, choose=drawn(seed)), noise=noise, seed=seed),
        operator="bert2bert-fpi",
        arguments=width_arguments(widths, g, noise=noise, seed=seed),
        preserves_function=True,
    )
