"""Progressive training from one layer: it becomes all layers.

Source: Bu 2025, "Scaling depth capacity via zero/one-layer model expansion",
https://arxiv.org/abs/2511.04981
"""

from hfgrow.errors import UsageError
from hfgrow.operators.depth_arguments import target_arguments, target_layers
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan


def progressive(base: GrowthPlan, *, g: int | None = None, layers: int | None = None) -> GrowthPlan:
    """Repeat the only layer of a one-layer model.

    The paper grows once, late in training, with a schedule that stays flat until then. Not function
    preserving.

    Args:
        base: The plan to grow, with one layer.
        g: Growth factor, at least 2; the same number as layers.
        layers: Target depth `L`.

    Raises:
        UsageError: The base has more than one layer, not exactly one of g and layers, or not deeper
            than the base.
    """
    if base.num_hidden_layers != 1:
        raise UsageError(
            f"progressive grows models of 1 layer, the base has {base.num_hidden_layers}",
            hint="use stack: hfgrow stack MODEL --g 4",
        )
    target = target_layers(base, g, layers)
    return apply_layer_map(
        base, [0] * target, operator="progressive", arguments=target_arguments(g, layers)
    )
