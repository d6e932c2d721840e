"""Fresh layers on top, masked.

Source: Yao et al. 2023, "Masked Structural Growth for 2x Faster Language Model Pre-training",
https://arxiv.org/abs/2305.02869; Yang et al. 2020, "Progressively Stacking 2.0",
https://arxiv.org/abs/2011.13635; G_random in depth of https://arxiv.org/abs/2405.15319
"""

from hfgrow.operators.checks import check_amount, check_seed
from hfgrow.operators.depth_arguments import target_arguments, target_layers
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan, LayerSource


def random_depth(
    base: GrowthPlan,
    *,
    g: int | None = None,
    layers: int | None = None,
    seed: int = 0,
    mask: float = 0.0,
) -> GrowthPlan:
    """Put freshly initialised layers on top.

    What they add is multiplied by the mask, so a mask of 0 is function preserving, bit for bit, and
    leaves zeros at their branch ends. Where the config has an entry for each layer, they take that
    of the last one.

    Args:
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
    fresh = LayerSource(num_layers - 1, "random")
    return apply_layer_map(
        base,
        [*range(num_layers), *[fresh] * (target - num_layers)],
        operator="random-depth",
        arguments={**target_arguments(g, layers), "seed": seed, "mask": float(mask)},
        preserves_function=mask == 0,
        seed=seed,
        mask=float(mask),
    )
