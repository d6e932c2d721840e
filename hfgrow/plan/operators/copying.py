"""Noisy HyperCloning: copies told apart by noise that cancels in what they compute.

Source: Samragh et al. 2024, "Scaling Smart", https://arxiv.org/abs/2409.12903, Sec. 3 (noisy
variant); any width instead of whole multiples by the isometric lift

HyperCloning: every width tiled, every copy the same.

Source: Samragh et al. 2024, "Scaling Smart: Accelerating Large Language Model Pre-Training with
Small Model Initialization", https://arxiv.org/abs/2409.12903, Sec. 3 (symmetric variant)

Split: every width filled with copies that share what their source contributed.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3.1 and
App. A, G_direct in width; the isometric lift of the residual stream makes it exact under RMSNorm,
which the paper's form is not (its App. A.3)

LEMON: copies that share unevenly, and zeros where a whole copy does not fit.

Source: Wang et al. 2023, "LEMON: Lossless Model Expansion", https://arxiv.org/abs/2310.07999,
Sec. 4 (RMSNorm: zero expansion of the remainder)

Net2Net: every width filled with copies of units drawn at random.

Source: Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer",
https://arxiv.org/abs/1511.05641, Sec. 2.1 (Net2WiderNet)

bert2BERT, function preserving: every width filled with copies of units drawn at random.

Source: Chen et al. 2022, "bert2BERT: Towards Reusable Pretrained Language Models",
https://arxiv.org/abs/2110.07143, Sec. 3.2 (function preserving initialisation)

bert2BERT, advanced: the new units of a layer are those of the layer above it.

Source: Chen et al. 2022, "bert2BERT: Towards Reusable Pretrained Language Models",
https://arxiv.org/abs/2110.07143, Sec. 3.3 (advanced knowledge initialisation)

Staged: copies that each go on computing with their own kind.

Source: Shen et al. 2022, "Staged Training for Transformer Language Models",
https://arxiv.org/abs/2203.06211, Sec. 3.2 (width operator)
"""

from dataclasses import replace
from typing import Annotated

from hfgrow.plan.axes import FRESH
from hfgrow.plan.families.table import layer_of, layer_prefix
from hfgrow.plan.operators.operator import (
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    NoiseAmount,
    Seed,
    check_amount,
    check_multiples,
    check_seed,
    width_arguments,
)
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Blend, Lift, Recipe
from hfgrow.plan.width import WidthGrowth, apply_width, random_in
from hfgrow.plan.width_maps import copying_maps, drawn, target_widths


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


def staged(
    base: GrowthPlan,
    *,
    g: Annotated[int, "Growth factor of every width, at least 2."],
    noise: NoiseAmount = 0.3,
    seed: Seed = 0,
) -> GrowthPlan:
    """Set g copies of the model side by side: block diagonal matrices (staged training).

    What copy c of a unit writes depends only on what the c-th copies before it hold; the head
    takes the mean. Function preserving.

    Raises:
        UsageError: g is below 2, or the family cannot grow so.
    """
    widths = target_widths(base, g, None, None, None, None)
    check_seed(seed)
    check_amount("noise", noise)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths), noise=noise, seed=seed, rule=_block_diagonal),
        operator="staged",
        arguments=width_arguments(widths, g, noise=noise, seed=seed),
        preserves_function=True,
    )


def _block_diagonal(name: str, lift: Lift, base: GrowthPlan) -> Recipe:
    if lift.cols is None or not lift.rows.has_copies:
        return lift
    blocks = []
    for c in range(lift.cols.size // lift.cols.base):
        rows = lift.rows.copies(c, c)
        blocks.append((1.0, replace(lift, rows=rows, cols=lift.cols.read_from(c))))
    return Blend(tuple(blocks))
