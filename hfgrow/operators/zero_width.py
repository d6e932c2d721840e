"""Zero width: what the base has stays, what is new contributes nothing yet.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3.1 and
App. A, G_zero in width (Eq. 14 is `--style paper`)
"""

from typing import Annotated, Literal

from hfgrow.operators.checks import check_seed
from hfgrow.operators.width_arguments import (
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    Seed,
    width_arguments,
)
from hfgrow.plan.families.table import Kind, Role
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Fresh
from hfgrow.plan.width import WidthGrowth, apply_width, random_in
from hfgrow.plan.width_maps import padding_maps, target_widths

_STYLE = (
    "What is random: random-in makes everything random but what writes to the residual stream, "
    "and leaves fewer gradients at zero; paper is [[W, A], [0, C]] for every matrix."
)


def zero_width(
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

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    fresh = random_in if style == "random-in" else _paper
    return apply_width(
        base,
        WidthGrowth(maps=padding_maps(widths), seed=seed, fresh=fresh),
        operator="zero-width",
        arguments=width_arguments(widths, g, style=style, seed=seed),
        preserves_function=True,
    )


def _paper(role: Role, std: float) -> Fresh:
    return Fresh(columns=std, corner=std) if role.kind is Kind.LINEAR else Fresh()
