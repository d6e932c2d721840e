"""Staged: copies that each go on computing with their own kind.

Source: Shen et al. 2022, "Staged Training for Transformer Language Models",
https://arxiv.org/abs/2203.06211, Sec. 3.2 (width operator)
"""

from dataclasses import replace
from typing import Annotated

from hfgrow.operators.checks import check_amount, check_seed
from hfgrow.operators.width_arguments import NoiseAmount, Seed, width_arguments
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import Blend, Lift, Recipe
from hfgrow.plan.width import WidthGrowth, apply_width
from hfgrow.plan.width_maps import copying_maps, target_widths


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
