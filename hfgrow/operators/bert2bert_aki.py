"""bert2BERT, advanced: the new units of a layer are those of the layer above it.

Source: Chen et al. 2022, "bert2BERT: Towards Reusable Pretrained Language Models",
https://arxiv.org/abs/2110.07143, Sec. 3.3 (advanced knowledge initialisation)
"""

from dataclasses import replace

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
from hfgrow.plan.families.table import layer_of, layer_prefix
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Blend, Lift, Recipe
from hfgrow.plan.width import WidthGrowth, apply_width
from hfgrow.plan.width_maps import copying_maps, drawn, target_widths


def bert2bert_aki(
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
    """Fill the new rows of each layer from the layer above it (bert2BERT AKI).

    Columns are copied and split as in bert2bert-fpi; the rows that are copies there are here the
    same rows of the next layer, and of the last layer itself. Not function preserving.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    maps = copying_maps(widths, choose=drawn(seed))
    return apply_width(
        base,
        WidthGrowth(maps=maps, noise=noise, seed=seed, rule=_from_next_layer),
        operator="bert2bert-aki",
        arguments=width_arguments(widths, g, noise=noise, seed=seed),
        preserves_function=False,
    )


def _from_next_layer(name: str, lift: Lift, base: GrowthPlan) -> Recipe:
    found = layer_of(name)
    if found is None or found[0] + 1 == base.num_hidden_layers or not lift.rows.has_copies:
        return lift
    above = base.tensors[layer_prefix(found[0] + 1) + found[1]].recipe
    own = replace(lift, rows=lift.rows.copies(0, 0))
    new = replace(lift, recipe=above, rows=lift.rows.copies(1, lift.rows.size))
    return Blend(((1.0, own), (1.0, new)))
