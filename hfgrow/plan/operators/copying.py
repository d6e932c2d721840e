"""Operators in width that fill every axis with copies of its units."""

from dataclasses import replace
from typing import Annotated

from hfgrow.plan.axes import FRESH
from hfgrow.plan.families.table import layer_of, layer_prefix
from hfgrow.plan.operators.operator import (
    STACKING_PAPER,
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    NoiseAmount,
    Operator,
    Seed,
    check_amount,
    check_multiples,
    check_seed,
    operator,
    width_arguments,
)
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Blend, Lift, Recipe
from hfgrow.plan.width import WidthGrowth, apply_width, random_in
from hfgrow.plan.width_maps import copying_maps, drawn, target_widths


@operator(
    "hyperclone-noisy",
    axis="width",
    preserves_function=True,
    formula="copies i mod d, each 1/n of its source, plus N with N P = 0",
    paper="Samragh et al. 2024, Scaling Smart, https://arxiv.org/abs/2409.12903",
    tags=("width-growth",),
)
def hyperclone_noisy(
    own: Operator[...],
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

    Source: Sec. 3 of the paper (noisy variant); any width instead of whole multiples by the
    isometric lift.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths), noise=noise, seed=seed),
        own.step(width_arguments(widths, g, noise=noise, seed=seed)),
    )


@operator(
    "hyperclone",
    axis="width",
    preserves_function=True,
    formula="W' = W/n in n x n tiles, D = n d",
    paper="Samragh et al. 2024, Scaling Smart, https://arxiv.org/abs/2409.12903",
    tags=("width-growth",),
)
def hyperclone(
    own: Operator[...],
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

    Source: Sec. 3 of the paper (symmetric variant).

    Raises:
        UsageError: No target, one that is no multiple of the base's, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_multiples("hyperclone", widths)
    return apply_width(
        base, WidthGrowth(maps=copying_maps(widths)), own.step(width_arguments(widths, g))
    )


@operator(
    "split",
    axis="width",
    preserves_function=True,
    formula="W' = W with rows copied, columns split a + b = 1",
    paper=STACKING_PAPER,
    tags=("width-growth",),
)
def split(
    own: Operator[...],
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

    Source: Sec. 3.1 and App. A of the paper; the isometric lift of the residual stream makes it
    exact under RMSNorm, which the paper's form is not (its App. A.3).

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    growth = WidthGrowth(maps=copying_maps(widths, even=even), noise=noise, seed=seed)
    return apply_width(
        base, growth, own.step(width_arguments(widths, g, even=even, noise=noise, seed=seed))
    )


@operator(
    "lemon",
    axis="width",
    preserves_function=True,
    formula="h' = [h, .., h, 0], copies split 1 : 2 : .. : n",
    paper="Wang et al. 2023, LEMON, https://arxiv.org/abs/2310.07999",
    tags=("width-growth",),
)
def lemon(
    own: Operator[...],
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

    Source: Sec. 4 of the paper (RMSNorm: zero expansion of the remainder).

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
        own.step(width_arguments(widths, g, noise=noise, seed=seed)),
    )


@operator(
    "net2net",
    axis="width",
    preserves_function=True,
    formula="copies of units drawn at random, each 1/n, plus noise",
    paper="Chen et al. 2016, Net2Net, https://arxiv.org/abs/1511.05641",
    tags=("width-growth",),
)
def net2net(
    own: Operator[...],
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

    Source: Sec. 2.1 of the paper (Net2WiderNet).

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("noise", noise)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths, choose=drawn(seed)), noise=noise, seed=seed),
        own.step(width_arguments(widths, g, noise=noise, seed=seed)),
    )


# Sec. 3.2 of its paper (function preserving initialisation).
bert2bert_fpi = net2net.variant(
    "bert2bert-fpi",
    formula="copies of units drawn at random, each 1/n",
    paper="Chen et al. 2022, bert2BERT, https://arxiv.org/abs/2110.07143",
    summary="Copy units drawn at random, split evenly, without noise (bert2BERT FPI).",
    noise=0.0,
)


@operator(
    "bert2bert-aki",
    axis="width",
    preserves_function=False,
    formula="as bert2bert-fpi, new rows of layer i from layer i+1",
    paper="Chen et al. 2022, bert2BERT, https://arxiv.org/abs/2110.07143",
    tags=("width-growth",),
)
def bert2bert_aki(
    own: Operator[...],
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

    Source: Sec. 3.3 of the paper (advanced knowledge initialisation).

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
        own.step(width_arguments(widths, g, noise=noise, seed=seed)),
    )


def _from_next_layer(name: str, lift: Lift, base: GrowthPlan) -> Recipe:
    found = layer_of(name)
    if found is None or found[0] + 1 == base.num_hidden_layers or not lift.rows.has_copies:
        return lift
    above = base.tensors[layer_prefix(found[0] + 1) + found[1]].recipe
    old = replace(lift, rows=lift.rows.copies(0, 0))
    new = replace(lift, recipe=above, rows=lift.rows.copies(1, lift.rows.size))
    return Blend(((1.0, old), (1.0, new)))


@operator(
    "staged",
    axis="width",
    preserves_function=True,
    formula="W' = diag(W, .., W), g times",
    paper=(
        "Shen et al. 2022, Staged Training for Transformer Language Models, "
        "https://arxiv.org/abs/2203.06211"
    ),
    tags=("width-growth",),
)
def staged(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: Annotated[int, "Growth factor of every width, at least 2."],
    noise: NoiseAmount = 0.3,
    seed: Seed = 0,
) -> GrowthPlan:
    """Set g copies of the model side by side: block diagonal matrices (staged training).

    What copy c of a unit writes depends only on what the c-th copies before it hold; the head
    takes the mean. Function preserving.

    Source: Sec. 3.2 of the paper (width operator).

    Raises:
        UsageError: g is below 2, or the family cannot grow so.
    """
    widths = target_widths(base, g, None, None, None, None)
    check_seed(seed)
    check_amount("noise", noise)
    return apply_width(
        base,
        WidthGrowth(maps=copying_maps(widths), noise=noise, seed=seed, rule=_block_diagonal),
        own.step(width_arguments(widths, g, noise=noise, seed=seed)),
    )


def _block_diagonal(name: str, lift: Lift, base: GrowthPlan) -> Recipe:
    if lift.cols is None or not lift.rows.has_copies:
        return lift
    blocks = []
    for c in range(lift.cols.size // lift.cols.base):
        rows = lift.rows.copies(c, c)
        blocks.append((1.0, replace(lift, rows=rows, cols=lift.cols.read_from(c))))
    return Blend(tuple(blocks))
