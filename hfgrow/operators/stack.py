"""Stack: the whole stack of layers repeated.

Source: Du et al. 2024, "Stacking Your Transformers: A Closer Look at Model Growth for Efficient LLM
Pre-Training", https://arxiv.org/abs/2405.15319, Sec. 3.1, G_direct in depth (G_stack)
"""

from typing import Literal

from hfgrow.errors import UsageError
from hfgrow.operators.depth_arguments import target_arguments, target_layers
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan


def stack(
    base: GrowthPlan,
    *,
    g: int | None = None,
    layers: int | None = None,
    remainder: Literal["tail", "head"] = "tail",
) -> GrowthPlan:
    """Repeat the whole stack of layers (Gstack): M, M, ..., M.

    Layer `i` of the output is layer `i mod l` of the base. Not function preserving.

    Args:
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
        raise UsageError("--remainder goes with --layers: a growth factor leaves none")
    num_layers = base.num_hidden_layers
    target = target_layers(base, g, layers)
    full, rest = divmod(target, num_layers)
    layer_map = list(range(num_layers)) * full
    layer_map += range(num_layers - rest, num_layers) if remainder == "tail" else range(rest)
    arguments = target_arguments(g, layers)
    if rest:
        arguments["remainder"] = remainder
    return apply_layer_map(base, layer_map, operator="stack", arguments=arguments)
