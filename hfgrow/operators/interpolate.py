"""Interpolate: every layer repeated in place.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, ablation of
stacking against interpolation
"""

from hfgrow.operators.depth_arguments import target_arguments, target_layers
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan


def interpolate(base: GrowthPlan, *, g: int | None = None, layers: int | None = None) -> GrowthPlan:
    """Repeat every layer in place: 0, 0, 1, 1, ...

    Layer `i` of the output is layer `floor(i * l / L)` of the base. Not function preserving.

    Args:
        base: The plan to grow, with `l` layers.
        g: Growth factor: how many times each layer stands, at least 2.
        layers: Target depth `L` instead of g; any depth above that of the base.

    Raises:
        UsageError: Not exactly one of g and layers, or not deeper than the base.
    """
    target = target_layers(base, g, layers)
    layer_map = [i * base.num_hidden_layers // target for i in range(target)]
    return apply_layer_map(
        base, layer_map, operator="interpolate", arguments=target_arguments(g, layers)
    )
