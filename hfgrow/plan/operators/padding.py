"""Operators in width that keep the base as a block and add zeros or fresh units around it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Annotated, Any, Literal

from hfgrow.errors import UsageError, argument, printable
from hfgrow.plan.depth import HIDDEN
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.gemma import QUERY_SCALAR
from hfgrow.plan.families.llama import KEY, VALUE
from hfgrow.plan.families.table import Family, Kind, Role
from hfgrow.plan.operators.operator import (
    STACKING_PAPER,
    Amount,
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    Mark,
    Operator,
    Seed,
    check_amount,
    check_seed,
    operator,
    width_arguments,
)
from hfgrow.plan.operators.weights import perturbed
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Fresh
from hfgrow.plan.width import WidthGrowth, apply_width, check_width, random_in
from hfgrow.plan.width_maps import padding_maps, rotary_maps, target_widths

_STYLE = (
    "What is random: random-in makes everything random but what writes to the residual stream, "
    "and leaves fewer gradients at zero; paper is [[W, A], [0, C]] for every matrix."
)


@operator(
    "zero-width",
    axis="width",
    preserves_function=True,
    formula="h' = [h, 0]; readers [[W, A], [B, C]], writers [[W, 0], [0, 0]]",
    paper=STACKING_PAPER,
    tags=("width-growth",),
    after="split",
)
def zero_width(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    style: Annotated[Literal["random-in", "paper"], _STYLE] = "random-in",
    seed: Seed = 0,
) -> GrowthPlan:
    """Keep every unit and add ones that write zeros (G_zero in width).

    Function preserving. The weights that read the new units, and in the style random-in those that
    the new units read with, are random, so that gradients reach them.

    Source: Sec. 3.1 and App. A of the paper (Eq. 14 is the style paper).

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    fresh = random_in if style == "random-in" else _paper
    return apply_width(
        base,
        WidthGrowth(maps=padding_maps(widths), seed=seed, fresh=fresh),
        own.step(width_arguments(widths, g, style=style, seed=seed)),
    )


def _paper(role: Role, std: float) -> Fresh:
    return Fresh(columns=std, corner=std) if role.kind is Kind.LINEAR else Fresh()


@operator(
    "random-width",
    axis="width",
    preserves_function=True,
    formula="W' = [[W, A], [B, C]], what reaches the stream anew times the mask",
    paper=f"{STACKING_PAPER}; Yao et al. 2023, Masked Structural Growth, https://arxiv.org/abs/2305.02869",
    tags=("width-growth",),
    after="zero-width",
)
def random_width(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    mask: Annotated[Amount, "The factor on what is new, from 0 (hidden) to 1 (open)."] = 0.0,
    seed: Seed = 0,
) -> GrowthPlan:
    """Add random units behind a mask that training opens (G_random in width).

    What new units write to the residual stream, and what is written to its new coordinates, is
    multiplied by the mask. Function preserving at mask 0.

    Source: Sec. 3.1 and App. A of the first paper; the mask is the second's.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("mask", mask)
    return apply_width(
        base,
        WidthGrowth(maps=padding_maps(widths), seed=seed, fresh=partial(_masked, mask)),
        own.step(width_arguments(widths, g, mask=mask, seed=seed), preserves_function=mask == 0),
    )


def _masked(mask: float, role: Role, std: float) -> Fresh:
    if role.kind is Kind.EMBEDDING:
        return Fresh(columns=mask * std)
    if role.dimensions[0] == HIDDEN:
        return Fresh(rows=mask * std, columns=mask * std, corner=mask * mask * std)
    return Fresh(rows=std, columns=std, corner=std)


@operator(
    "snp",
    axis="width",
    preserves_function=False,
    formula="W' = s [[W, 0], [0, 0]] + N(0, sigma^2)",
    paper=(
        "Mallik et al. 2024, Warmstarting for Scaling Language Models, "
        "https://arxiv.org/abs/2411.07340"
    ),
    tags=("width-growth",),
)
def snp(
    own: Operator[...],
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    shrink: Annotated[Amount, "The factor on the weights of the base, from 0 to 1."] = 0.4,
    seed: Seed = 0,
) -> GrowthPlan:
    """Pad with zeros, shrink, and add the noise of a fresh model (shrink and perturb).

    Every matrix becomes shrink W + N(0, sigma^2), sigma being that of a fresh model of the new
    width. Not function preserving.

    Source: shrinking, zero padding and perturbation of the paper.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("shrink", shrink)
    padded = apply_width(
        base,
        WidthGrowth(maps=padding_maps(widths), seed=seed),
        own.step(width_arguments(widths, g, shrink=shrink, seed=seed)),
    )
    return perturbed(padded, keep=shrink, amount=1.0, key=f"{seed}/{own.name}")


# Rotary embeddings whose frequencies depend on the pair's number alone, or on its frequency.
_ROPE_TYPES = (None, "default", "linear", "llama3")


@operator(
    "head-dim",
    axis="width",
    preserves_function=True,
    formula="rotary pair i to pair k i, the rest zero",
    paper=(
        "Gesmundo and Maile 2023, Composable Function-preserving Expansions, "
        "https://arxiv.org/abs/2308.06103"
    ),
    tags=("width-growth",),
    before={"softmax_scale": "kept"},
)
def head_dim(
    own: Operator[...],
    base: GrowthPlan,
    *,
    factor: int,
    softmax_scale: Annotated[Literal["follow", "kept"], Mark.VARIANT] = "follow",
    seed: Seed = 0,
) -> GrowthPlan:
    """Make every head wider by a whole factor; each rotary pair keeps its frequency.

    New dimensions of queries are zero, and so is what reads new dimensions of values; those of
    keys and values are random, so that gradients reach all of them, but keys that pass a norm stay
    zero there. Queries and keys are scaled so that the attention logits stay. Function preserving.

    The scale of Gemma 3, query_pre_attn_scalar, follows head_dim where it was equal to it, and the
    gain of queries makes up for that: there are programs that know no scale but head_dim's.

    Source: the paper's attention expansion; the places of the rotary pairs follow from
    `theta^(-2 k i / (k head_dim)) = theta^(-2 i / head_dim)`.

    Args:
        own: The operator, for the record.
        base: The plan to grow.
        factor: By how much head_dim grows, at least 2.
        softmax_scale: Whether query_pre_attn_scalar of a Gemma 3 may follow head_dim.
        seed: Seeds what is random; the same seed gives the same bytes.

    Raises:
        UsageError: The factor is below 2, or the rotary embeddings depend on head_dim.
    """
    if factor < 2:
        raise UsageError(
            f"the factor of head_dim must be at least 2, not {factor}",
            hint=f"try {argument('factor', 2)}",
        )
    family, config = FAMILIES[base.family], base.config
    if reason := why_fixed(family, config):
        raise UsageError(f"head_dim cannot grow: {reason}")
    check_seed(seed)
    dim = family.sizes(config)["head_dim"]
    check_width(factor * dim)
    normalised = any("norm" in name and "self_attn" in name for name in family.roles(config))
    maps = rotary_maps(
        dim, factor * dim, normalised=normalised, fixed_scale=bool(family.softmax_scale_key)
    )
    follows = (
        softmax_scale == "follow"
        and normalised
        and family.softmax_scale_key == QUERY_SCALAR
        and config.get(QUERY_SCALAR, family.head_dim_default) == dim
    )
    grown = apply_width(
        base,
        WidthGrowth(
            maps=maps,
            seed=seed,
            fresh=partial(_fresh, normalised),
            query_gain=sqrt(factor) if follows else 1.0,
        ),
        own.step({"factor": factor, "softmax_scale": softmax_scale, "seed": seed}),
    )
    settings = {QUERY_SCALAR: factor * dim} if follows else {}
    return replace(grown, config={**grown.config, **settings})


def _fresh(normalised: bool, role: Role, std: float) -> Fresh:
    # Queries and keys that are both zero in a dimension would never leave it; nor would values
    # that nothing reads. Fused projections hold queries too.
    keys_or_values = (VALUE,) if normalised else (KEY, VALUE)
    is_random = role.kind is Kind.LINEAR and role.dimensions[0] in keys_or_values
    return Fresh(rows=std, corner=std) if is_random else Fresh()


def why_fixed(family: Family, config: Mapping[str, Any]) -> str | None:
    """Return why the rotary embeddings of a config let no head grow, or None if they do."""
    if "qk_dim" in family.fixed_axes:
        return family.fixed_axes["qk_dim"]
    if not config.get("rope_parameters") and not config.get("rope_scaling"):
        config = {**config, "rope_parameters": family.rope_default}
    if config.get("partial_rotary_factor") not in (None, 1, 1.0):
        return "only a part of it is rotary"
    reasons = (_why_fixed(config.get(key), key) for key in ("rope_parameters", "rope_scaling"))
    return next(filter(None, reasons), None)


def _why_fixed(settings: object, key: str) -> str | None:
    if not isinstance(settings, dict):
        return None
    kind = settings.get("rope_type", settings.get("type"))
    if kind not in _ROPE_TYPES:
        return f"the frequencies of {key} of the type {printable(repr(kind))} depend on it"
    if settings.get("partial_rotary_factor") not in (None, 1, 1.0):
        return "only a part of it is rotary"
    return next(filter(None, (_why_fixed(nested, key) for nested in settings.values())), None)
