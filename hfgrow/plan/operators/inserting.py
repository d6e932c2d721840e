"""Operators in depth that put new layers between those of the base, or on top."""

from hfgrow.errors import UsageError, argument, growth, printable
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.operators.operator import (
    Amount,
    Operator,
    Seed,
    check_amount,
    check_divides,
    check_seed,
    operator,
    target_arguments,
    target_layers,
)
from hfgrow.plan.plan import FROM_NONE, GrowthPlan, LayerSource


@operator(
    "zero-depth",
    axis="depth",
    preserves_function=True,
    formula="o[i] = floor(i l / L), zero unless o[i] > o[i-1]",
    paper=(
        "Wang et al. 2023, LEMON, "
        "https://arxiv.org/abs/2310.07999; "
        "Wu et al. 2024, LLaMA Pro, "
        "https://arxiv.org/abs/2401.02415"
    ),
    tags=("depth-upscaling", "block-expansion"),
    adds_silent_layers=True,
)
def zero_depth(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: int | None = None,
    layers: int | None = None,
    every: int | None = None,
) -> GrowthPlan:
    """Insert copies of layers that add nothing at first.

    Layer `i` of the output comes from layer `floor(i * l / L)` of the base; the first of each is a
    copy, the others have zeros at their branch ends. Function preserving: the logits stay the same
    bit for bit.

    Source: LLaMA Pro Sec. 3; it is G_zero in depth of https://arxiv.org/abs/2405.15319.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        g: Growth factor: how many times each layer stands, at least 2.
        layers: Target depth `L` instead of g; any depth above that of the base.
        every: Instead of g and layers: one zero copy behind each group of this many layers, of the
            group's last (LLaMA Pro). Divides the number of layers.

    Raises:
        UsageError: Not exactly one of the three, not deeper than the base, or groups that do not
            divide it.
    """
    num_layers = base.num_hidden_layers
    if sum(value is not None for value in (g, layers, every)) != 1:
        raise UsageError(
            f"zero-depth takes one of {argument('g')}, {argument('layers')} and "
            f"{argument('every')}",
            hint=f"try {argument('g', 2)}",
        )
    if every is not None:
        check_divides(base, "every", every)
        sources = [i for i in range(num_layers) for _ in range(1 + ((i + 1) % every == 0))]
        arguments: dict[str, object] = {"every": every}
    else:
        target = target_layers(base, g, layers)
        sources = [i * num_layers // target for i in range(target)]
        arguments = target_arguments(g, layers)
    layer_map = [
        LayerSource(layer, "zero" if i and sources[i - 1] == layer else "copy")
        for i, layer in enumerate(sources)
    ]
    return apply_layer_map(base, layer_map, own.step(arguments))


@operator(
    "random-depth",
    axis="depth",
    preserves_function=True,
    formula="o = 0 .. l-1 ++ L-l fresh layers, their branches times the mask",
    paper=(
        "Yao et al. 2023, Masked Structural Growth, "
        "https://arxiv.org/abs/2305.02869; "
        "Yang et al. 2020, Progressively Stacking 2.0, "
        "https://arxiv.org/abs/2011.13635"
    ),
    tags=("depth-upscaling",),
    starts_from_none=True,
    adds_silent_layers=True,
)
def random_depth(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: int | None = None,
    layers: int | None = None,
    seed: Seed = 0,
    mask: Amount = 0.0,
) -> GrowthPlan:
    """Put freshly initialised layers on top.

    What they add is multiplied by the mask, so a mask of 0 is function preserving, bit for bit, and
    leaves zeros at their branch ends. Where the config has an entry for each layer, they take that
    of the last one.

    Source: the papers; it is G_random in depth of https://arxiv.org/abs/2405.15319.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        g: Growth factor: the target depth in units of that of the base, at least 2.
        layers: Target depth `L` instead of g; any depth above that of the base.
        seed: Seeds the fresh layers, from 0 to 4294967295; the same seed gives the same bytes.
        mask: Factor on what the fresh layers add, from 0 to 1; above 0 the function changes.

    Raises:
        UsageError: Not exactly one of g and layers, not deeper than the base, or a seed or mask out
            of range.
    """
    num_layers = base.num_hidden_layers
    target = target_layers(base, g, layers)
    check_seed(seed)
    check_amount("mask", mask)
    fresh = LayerSource(num_layers - 1, "random") if num_layers else FROM_NONE
    return apply_layer_map(
        base,
        [*range(num_layers), *[fresh] * (target - num_layers)],
        own.step(
            {**target_arguments(g, layers), "seed": seed, "mask": float(mask)},
            preserves_function=mask == 0,
        ),
        seed=seed,
        mask=float(mask),
    )


@operator(
    "average",
    axis="depth",
    preserves_function=False,
    formula="o = 0 .. l-1, mean j of k behind floor((2j+1)(l-1) / 2k), k = L-l",
    paper=(
        "Cao et al. 2025, Progressive Depth Up-scaling via Optimal Transport, "
        "https://arxiv.org/abs/2508.08011"
    ),
    tags=("depth-upscaling",),
)
def average(own: Operator[...], base: GrowthPlan, *, layers: int | None = None) -> GrowthPlan:
    """Insert means of neighbouring layers between them.

    The `k = L - l` means are spread evenly: mean `j` stands behind layer
    `floor((2j + 1) * (l - 1) / (2k))` of the base and takes its config entries. Not function
    preserving.

    Source: the averaging that the paper starts from, without its alignment.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        layers: Target depth `L`, at most 2l - 1; left out, a mean stands in every gap: 2l - 1.

    Raises:
        UsageError: The base has a single layer, or the target is out of range.
    """
    _check_has_gap(base, "average")
    layer_map = between(base, layers, "average")
    return apply_layer_map(base, layer_map, own.step({"layers": len(layer_map)}))


def between(base: GrowthPlan, layers: int | None, mode: str) -> list[LayerSource]:
    """Return all layers of a base in order, and between them some of a mode, spread evenly.

    Raises:
        UsageError: The target is no deeper than the base, or there are too few gaps.
    """
    num_layers = base.num_hidden_layers
    num_gaps = num_layers - 1
    target = num_layers + num_gaps if layers is None else layers
    _check_gaps(num_layers, target)
    num_new = target - num_layers
    behind = {(2 * j + 1) * num_gaps // (2 * num_new) for j in range(num_new)}
    return [
        LayerSource(i, m)
        for i in range(num_layers)
        for m in (("copy", mode) if i in behind else ("copy",))
    ]


def _check_has_gap(base: GrowthPlan, operator: str) -> None:
    if base.num_hidden_layers < 2:
        raise UsageError(
            f"{operator} needs at least 2 layers, the base has 1",
            hint=f"use progressive: {growth('progressive', layers=12)}",
        )


def _check_gaps(num_layers: int, target: int) -> None:
    most = 2 * num_layers - 1
    if not num_layers < target <= most:
        raise UsageError(
            f"{argument('layers')} must be from {num_layers + 1} to {most}, one layer in a gap "
            f"between {num_layers}, not {target}"
        )


MIN_REGULARIZATION, MAX_REGULARIZATION = 0.01, 100.0


@operator(
    "opt-deus",
    axis="depth",
    preserves_function=True,
    formula="o = 0 .. l-1, one layer of k behind each of l-1-k .. l-2, k = L-l",
    paper=(
        "Cao et al. 2025, Progressive Depth Up-scaling via Optimal Transport, "
        "https://arxiv.org/abs/2508.08011"
    ),
    tags=("depth-upscaling",),
)
def opt_deus(
    own: Operator[...],
    base: GrowthPlan,
    *,
    layers: int | None = None,
    regularization: Amount = 0.06,
) -> GrowthPlan:
    """Insert means of neighbouring layers, their neurons aligned, that add nothing at first.

    The rows of each matrix of the lower layer are put in the order of the rows of the upper one
    that they are nearest to, by entropic optimal transport, and the mean is taken; norms and biases
    are plain means, branch ends are zero. One new layer stands in each of the topmost gaps.
    Function preserving: the logits stay the same bit for bit.

    Source: the paper and its code, which take Euclidean distances and a weight of 0.06. Here a plan
    is scaled so that an aligned row is a mean of rows, and the inputs of gate_proj and up_proj,
    which are the residual stream, are not permuted.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        layers: Target depth `L`, at most 2l - 1; left out, the upper half gets new layers: l + l/2.
        regularization: How much the entropy of a plan weighs beside distances, from 0.01 to 100: a
            small one pairs rows, a large one mixes them all.

    Raises:
        UsageError: The base has a single layer, or the target or the weight is out of range.
    """
    num_layers = base.num_hidden_layers
    _check_has_gap(base, "opt-deus")
    if not MIN_REGULARIZATION <= regularization <= MAX_REGULARIZATION:
        raise UsageError(
            f"{argument('regularization')} must be from {MIN_REGULARIZATION} to "
            f"{MAX_REGULARIZATION:g}, not {printable(regularization, 40)}"
        )
    target = num_layers + num_layers // 2 if layers is None else layers
    _check_gaps(num_layers, target)
    lowest = 2 * num_layers - 1 - target
    layer_map = [
        LayerSource(i, mode)
        for i in range(num_layers)
        for mode in (("copy", "aligned") if lowest <= i < num_layers - 1 else ("copy",))
    ]
    return apply_layer_map(
        base,
        layer_map,
        own.step({"layers": target, "regularization": float(regularization)}),
        regularization=float(regularization),
    )


MIN_LAYERS = 3


@operator(
    "lesa",
    axis="depth",
    preserves_function=False,
    formula="o = 0 .. l-1, layer j of k behind floor((2j+1)(l-1) / 2k), k = L-l",
    paper="Yang et al. 2025, LESA, https://arxiv.org/abs/2502.13794",
    tags=("depth-upscaling",),
)
def lesa(
    own: Operator[...], base: GrowthPlan, *, layers: int | None = None, seed: Seed = 0
) -> GrowthPlan:
    """Insert layers predicted from their neighbours by a small trained network (LESA).

    For every kind of matrix a network learns, from the weights alone, to tell a layer from the two
    around it; norms and biases are means. The layers stand where those of average stand. Not
    function preserving. The same seed gives the same bytes on one machine with one version of
    torch; elsewhere verify and reproduce find other bytes.

    Source: the paper, where they stand in the upper half only and training keeps the other layers
    as they are.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers, at least 3.
        layers: Target depth `L`, at most 2l - 1; left out, a layer stands in every gap: 2l - 1.
        seed: Seeds the networks, from 0 to 4294967295.

    Raises:
        UsageError: The base has fewer than 3 layers, or the target or the seed is out of range.
    """
    num_layers = base.num_hidden_layers
    if num_layers < MIN_LAYERS:
        raise UsageError(
            f"lesa learns from at least {MIN_LAYERS} layers, the base has {num_layers}",
            hint=f"use stack: {growth('stack', layers=2 * num_layers)}",
        )
    check_seed(seed)
    layer_map = between(base, layers, "predicted")
    return apply_layer_map(
        base, layer_map, own.step({"layers": len(layer_map), "seed": seed}), seed=seed
    )
