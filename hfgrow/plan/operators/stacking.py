"""Operators in depth whose new layers are copies: each is a layer map."""

from typing import Literal

from hfgrow.errors import UsageError, argument, growth, printable
from hfgrow.plan.depth import LAYER_RUN, apply_layer_map, check_num_layers, run_of
from hfgrow.plan.operators.operator import (
    STACKING_PAPER,
    Operator,
    Seed,
    check_divides,
    check_seed,
    operator,
    target_arguments,
    target_layers,
)
from hfgrow.plan.plan import FROM_NONE, GrowthPlan


@operator(
    "stack",
    axis="depth",
    preserves_function=False,
    formula="o[i] = i mod l",
    paper=STACKING_PAPER,
    tags=("depth-upscaling", "stacking"),
)
def stack(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: int | None = None,
    layers: int | None = None,
    remainder: Literal["tail", "head"] = "tail",
) -> GrowthPlan:
    """Repeat the whole stack of layers (Gstack): M, M, ..., M.

    Layer `i` of the output is layer `i mod l` of the base. Not function preserving.

    Source: Sec. 3.1 of the paper, G_direct in depth (G_stack).

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        g: Growth factor: how many times the layers are stacked, at least 2.
        layers: Target depth instead of g; any depth above that of the base.
        remainder: Which layers fill up a target depth that is no multiple of the base's: the last
            ones (tail), so that the model ends on the layer the final norm expects, or the first
            ones (head).

    Raises:
        UsageError: Not exactly one of g and layers, not deeper than the base, or a remainder where
            g leaves none.
    """
    if g is not None and remainder != "tail":
        raise UsageError(
            f"{argument('remainder')} goes with {argument('layers')}: a growth factor leaves none"
        )
    num_layers = base.num_hidden_layers
    target = target_layers(base, g, layers)
    full, rest = divmod(target, num_layers)
    layer_map = list(range(num_layers)) * full
    layer_map += range(num_layers - rest, num_layers) if remainder == "tail" else range(rest)
    arguments = target_arguments(g, layers)
    if rest:
        arguments["remainder"] = remainder
    return apply_layer_map(base, layer_map, own.step(arguments))


@operator(
    "interpolate",
    axis="depth",
    preserves_function=False,
    formula="o[i] = floor(i l / L)",
    paper=STACKING_PAPER,
    tags=("depth-upscaling",),
)
def interpolate(
    own: Operator[...], base: GrowthPlan, *, g: int | None = None, layers: int | None = None
) -> GrowthPlan:
    """Repeat every layer in place: 0, 0, 1, 1, ...

    Layer `i` of the output is layer `floor(i * l / L)` of the base. Not function preserving.

    Source: the paper's ablation of stacking against interpolation.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        g: Growth factor: how many times each layer stands, at least 2.
        layers: Target depth `L` instead of g; any depth above that of the base.

    Raises:
        UsageError: Not exactly one of g and layers, or not deeper than the base.
    """
    target = target_layers(base, g, layers)
    layer_map = [i * base.num_hidden_layers // target for i in range(target)]
    return apply_layer_map(base, layer_map, own.step(target_arguments(g, layers)))


@operator(
    "partial",
    axis="depth",
    preserves_function=False,
    formula="o = A ++ B * r ++ C, the layers cut in runs A B C",
    paper=STACKING_PAPER,
    tags=("depth-upscaling", "stacking"),
)
def partial(own: Operator[...], base: GrowthPlan, pattern: str) -> GrowthPlan:
    """Repeat some of the layers, as 12-345*7-6, counted from 1 as in the paper.

    Parts are joined by "-"; a part is a run of neighbouring layers, counted from 1, and "*n"
    repeats it n times. In a part like 345 each digit is a layer; layers above 9 are written as a
    range, [10:24], or alone, [10]. A part may take up layers that stand before it, as in the
    paper's 12-3456*5-56, but none may be left out. Not function preserving.

    Source: the paper's appendix on partial stacking (Table 5).

    Args:
        own: The operator, for the record.
        base: The plan to grow.
        pattern: The notation, such as 12-345*7-6 for a base of 6 layers, or [1:8]-[9:16]*3-[17:22].

    Raises:
        UsageError: The notation is wrong, leaves a layer out, or does not grow the base.
    """
    num_layers = base.num_hidden_layers
    shown = printable(repr(pattern))
    layer_map: list[int] = []
    reached = 0
    for part in pattern.split("-"):
        match = LAYER_RUN.fullmatch(part)
        run = run_of(match["layers"]) if match else range(0)
        if match is None or not run:
            raise UsageError(
                f"{printable(part)!r} in {shown} is no run of neighbouring layers",
                hint="try 12-345*7-6, or [1:8]-[9:16]*3-[17:22] for layers above 9",
            )
        if run.start < 0 or run.stop > num_layers:
            raise UsageError(
                f"{printable(part)!r} in {shown} leaves the layers 1 to {num_layers} of the base"
            )
        if run.start > reached:
            raise _left_out(shown, reached, run.start)
        times = int(match["times"] or 1)
        if times < 1:
            raise UsageError(f"{printable(part)!r} repeats its layers {times} times; at least 1")
        check_num_layers(len(layer_map) + len(run) * times)
        layer_map += [*run] * times
        reached = max(reached, run.stop)
    if reached < num_layers:
        raise _left_out(shown, reached, num_layers)
    if len(layer_map) == num_layers:
        raise UsageError(f"{shown} repeats nothing", hint="add *n to a part")
    return apply_layer_map(base, layer_map, own.step({"pattern": pattern}))


def _left_out(shown: str, reached: int, upper: int) -> UsageError:
    run = f"[{reached + 1}]" if reached + 1 == upper else f"[{reached + 1}:{upper}]"
    return UsageError(
        f"{shown} leaves out the layers {reached + 1} to {upper} of the base",
        hint=f"every layer stands at least once, the lower ones first: {run} names what is missing",
    )


@operator(
    "solar",
    axis="depth",
    preserves_function=False,
    formula="o = 0 .. l-n-1 ++ n .. l-1",
    paper="Kim et al. 2023, SOLAR 10.7B, https://arxiv.org/abs/2312.15166",
    tags=("depth-upscaling",),
)
def solar(own: Operator[...], base: GrowthPlan, *, overlap: int = 8) -> GrowthPlan:
    """Stack the base on itself without the layers around the seam.

    The last `overlap` layers of the first copy and the first `overlap` of the second are left out:
    0 .. l-overlap-1, then overlap .. l-1. Not function preserving.

    Source: Sec. 2 of the paper.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        overlap: Layers left out on each side of the seam (SOLAR took 8 of 32), from 0 to below l/2.

    Raises:
        UsageError: The overlap is negative or leaves no growth.
    """
    num_layers = base.num_hidden_layers
    if overlap < 0 or 2 * overlap >= num_layers:
        raise UsageError(
            f"{argument('overlap')} must be from 0 to below half of the {num_layers} layers, not "
            f"{overlap}",
            hint=f"try {argument('overlap', num_layers // 4)}",
        )
    layer_map = [*range(num_layers - overlap), *range(overlap, num_layers)]
    return apply_layer_map(base, layer_map, own.step({"overlap": overlap}))


@operator(
    "append-top",
    axis="depth",
    preserves_function=False,
    formula="o = 0 .. l-1 ++ 2l-L .. l-1, L at most 2l",
    paper=(
        "Gong et al. 2019, Efficient Training of BERT by Progressively Stacking, "
        "https://proceedings.mlr.press/v97/gong19a.html; "
        "Yang et al. 2020, Progressively Stacking 2.0, "
        "https://arxiv.org/abs/2011.13635"
    ),
    tags=("depth-upscaling", "stacking"),
)
def append_top(
    own: Operator[...], base: GrowthPlan, *, g: int | None = None, layers: int | None = None
) -> GrowthPlan:
    """Put the top layers on top once more (StackedBERT, MSLT).

    0 .. l-1, then 2l-L .. l-1: what stack does up to twice the depth. One stage of gradual growth.
    Not function preserving.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        g: Growth factor; only 2 fits.
        layers: Target depth `L` instead of g; above that of the base, at most twice it.

    Raises:
        UsageError: Not exactly one of g and layers, not deeper than the base, or above its double.
    """
    num_layers = base.num_hidden_layers
    target = target_layers(base, g, layers)
    if target > 2 * num_layers:
        raise UsageError(
            f"append-top at most doubles the {num_layers} layers, it cannot make {target}",
            hint=f"use stack: {growth('stack', layers=target)}",
        )
    return apply_layer_map(
        base,
        [*range(num_layers), *range(2 * num_layers - target, num_layers)],
        own.step(target_arguments(g, layers)),
    )


@operator(
    "midas",
    axis="depth",
    preserves_function=False,
    formula="o = 0 .. mb-1 ++ (m-1)b .. l-1, m = ceil(l / 2b)",
    paper=(
        "Saunshi et al. 2024, On the Inductive Bias of Stacking Towards Improving Reasoning, "
        "https://arxiv.org/abs/2409.19044"
    ),
    tags=("depth-upscaling", "stacking"),
)
def midas(own: Operator[...], base: GrowthPlan, *, block: int | None = None) -> GrowthPlan:
    """Repeat the middle block of layers in place.

    Of `n = l / b` blocks, counted from 1, block `m = ceil(n / 2)` stands twice:
    0 .. m*b-1, then (m-1)*b .. l-1. One stage of gradual middle stacking. Not function
    preserving.

    Source: Sec. 3 of the paper.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        block: Layers in a block, `b`; divides the number of layers. Needed: the paper keeps it the
            same through all stages, so it depends on the first.

    Raises:
        UsageError: No block, or one that does not divide the number of layers.
    """
    num_layers, size = base.num_hidden_layers, check_divides(base, "block", block)
    middle = (num_layers // size + 1) // 2
    layer_map = [*range(middle * size), *range((middle - 1) * size, num_layers)]
    return apply_layer_map(base, layer_map, own.step({"block": size}))


@operator(
    "lidas",
    axis="depth",
    preserves_function=False,
    formula="o = 0 .. s+b-1 ++ s .. l-1, s = floor((l-b) / 2)",
    paper=(
        "Kapl et al. 2025, Do Depth-Grown Models Overcome the Curse of Depth?, "
        "https://arxiv.org/abs/2512.08819"
    ),
    tags=("depth-upscaling", "stacking"),
)
def lidas(own: Operator[...], base: GrowthPlan, *, block: int | None = None) -> GrowthPlan:
    """Repeat the layers around the exact middle in place.

    With `s = floor((l - b) / 2)` the output is 0 .. s+b-1, then s .. l-1. The same as midas where
    the number of blocks is odd. One stage of gradual growth. Not function preserving.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with `l` layers.
        block: Layers to repeat, `b`, from 1 to the number of layers. Needed, as for midas.

    Raises:
        UsageError: No block, or one out of range.
    """
    num_layers = base.num_hidden_layers
    if block is None:
        raise UsageError(
            f"lidas needs the number of layers to repeat, {argument('block')}",
            hint=f"try {argument('block', max(num_layers // 4, 1))}",
        )
    if not 1 <= block <= num_layers:
        raise UsageError(
            f"{argument('block')} must be from 1 to the {num_layers} layers, not {block}"
        )
    start = (num_layers - block) // 2
    layer_map = [*range(start + block), *range(start, num_layers)]
    return apply_layer_map(base, layer_map, own.step({"block": block}))


@operator(
    "progressive",
    axis="depth",
    preserves_function=False,
    formula="o[i] = 0, for l = 1; fresh layers, for l = 0",
    paper=(
        "Bu 2025, Scaling depth capacity via zero/one-layer model expansion, "
        "https://arxiv.org/abs/2511.04981"
    ),
    tags=("depth-upscaling", "stacking"),
    starts_from_none=True,
)
def progressive(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: int | None = None,
    layers: int | None = None,
    seed: Seed = 0,
) -> GrowthPlan:
    """Repeat the only layer of a one-layer model, or put fresh layers into one that has none.

    The paper grows once, late in training, with a schedule that stays flat until then; a model
    without layers is embeddings, a norm and a head. Not function preserving.

    Args:
        own: The operator, for the record.
        base: The plan to grow, with one layer or none.
        g: Growth factor, at least 2; the same number as layers.
        layers: Target depth `L`; needed where there is no layer.
        seed: Seeds fresh layers, from 0 to 4294967295; of a one-layer model nothing is random.

    Raises:
        UsageError: The base has more than one layer, not exactly one of g and layers, not deeper
            than the base, or a seed out of range.
    """
    if base.num_hidden_layers > 1:
        raise UsageError(
            f"progressive grows models of 1 layer or none, the base has {base.num_hidden_layers}",
            hint=f"use stack: {growth('stack', g=4)}",
        )
    target = target_layers(base, g, layers)
    check_seed(seed)
    if not base.num_hidden_layers:
        step = own.step({"layers": target, "seed": seed})
        return apply_layer_map(base, [FROM_NONE] * target, step, seed=seed, mask=1.0)
    return apply_layer_map(base, [0] * target, own.step(target_arguments(g, layers)))
