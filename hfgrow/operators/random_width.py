"""Random width: new units as from scratch, behind a mask.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, Sec. 3.1 and
App. A, G_random in width; Yao et al. 2023, "Masked Structural Growth",
https://arxiv.org/abs/2305.02869
"""

from functools import partial
from typing import Annotated

from hfgrow.operators.checks import check_amount, check_seed
from hfgrow.operators.width_arguments import (
    GrowthFactor,
    Heads,
    HiddenSize,
    IntermediateSize,
    KeyValueHeads,
    Seed,
    width_arguments,
)
from hfgrow.plan.depth import HIDDEN
from hfgrow.plan.families.table import Kind, Role
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Fresh
from hfgrow.plan.width import WidthGrowth, apply_width
from hfgrow.plan.width_maps import padding_maps, target_widths


def random_width(
    base: GrowthPlan,
    *,
    g: GrowthFactor = None,
    hidden_size: HiddenSize = None,
    ffn: IntermediateSize = None,
    heads: Heads = None,
    kv_heads: KeyValueHeads = None,
    mask: Annotated[float, "The factor on what is new, from 0 (hidden) to 1 (open)."] = 0.0,
    seed: Seed = 0,
) -> GrowthPlan:
    """Add random units behind a mask that training opens (G_random in width).

    What new units write to the residual stream, and what is written to its new coordinates, is
    multiplied by the mask. Function preserving at mask 0.

    Raises:
        UsageError: No target, one that is not wider, or one the family cannot have.
    """
    widths = target_widths(base, g, hidden_size, ffn, heads, kv_heads)
    check_seed(seed)
    check_amount("mask", mask)
    return apply_width(
        base,
        WidthGrowth(maps=padding_maps(widths), seed=seed, fresh=partial(_masked, mask)),
        operator="random-width",
        arguments=width_arguments(widths, g, mask=mask, seed=seed),
        preserves_function=mask == 0,
    )


def _masked(mask: float, role: Role, std: float) -> Fresh:
    if role.kind is Kind.EMBEDDING:
        return Fresh(columns=mask * std)
    if role.dimensions[0] == HIDDEN:
        return Fresh(rows=mask * std, columns=mask * std, corner=mask * mask * std)
    return Fresh(rows=std, columns=std, corner=std)
