"""Progressive stacking: the top layers again, on top.

Source: Gong et al. 2019, "Efficient Training of BERT by Progressively Stacking",
https://proceedings.mlr.press/v97/gong19a.html; Yang et al. 2020, "Progressively Stacking 2.0: A
Multi-stage Layerwise Training Method for BERT Training Speedup", https://arxiv.org/abs/2011.13635
"""

from hfgrow.errors import UsageError
from hfgrow.operators.depth_arguments import target_arguments, target_layers
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan


def append_top(base: GrowthPlan, *, g: int | None = None, layers: int | None = None) -> GrowthPlan:
    """Put the top layers on top once more (StackedBERT, MSLT).

    0 .. l-1, then 2l-L .. l-1: what stack does up to twice the depth. One stage of gradual growth.
    Not function preserving.

    Args:
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
            hint=f"use stack: hfgrow stack MODEL --layers {target}",
        )
    return apply_layer_map(
        base,
        [*range(num_layers), *range(2 * num_layers - target, num_layers)],
        operator="append-top",
        arguments=target_arguments(g, layers),
    )
