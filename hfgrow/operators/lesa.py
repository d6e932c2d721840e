"""Layers between others, predicted by a network that learns from all layers.

Source: Yang et al. 2025, "LESA: Learnable LLM Layer Scaling-Up", https://arxiv.org/abs/2502.13794;
there they stand in the upper half only, and training keeps the other layers as they are
"""

from hfgrow.errors import UsageError
from hfgrow.operators.average import between
from hfgrow.operators.checks import check_seed
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan

MIN_LAYERS = 3


def lesa(base: GrowthPlan, *, layers: int | None = None, seed: int = 0) -> GrowthPlan:
    """Insert layers predicted from their neighbours by a small trained network (LESA).

    For every kind of matrix a network learns, from the weights alone, to tell a layer from the two
    around it; norms and biases are means. The layers stand where those of average stand. Not
    function preserving. The same seed gives the same bytes on one machine with one version of
    torch; elsewhere verify and reproduce find other bytes.

    Args:
        base: The plan to grow, with `l` layers, at least 3.
        layers: Target depth `L`, at most 2l - 1; left out, a layer stands in every gap: 2l - 1.
        seed: Seeds the networks, from 0 to 4294967295.

    Raises:
        UsageError: The base has fewer than 3 layers, or the target or the seed is out of range.
    """
    num_layers = base.num_hidden_layers
    if num_layers < MIN_LAYERS:
        raise UsageError(
            f"lesa learns from at least {MIN_LAYERS} layers, the base has {num_layers}",
            hint=f"use stack: hfgrow stack MODEL --layers {2 * num_layers}",
        )
    check_seed(seed)
    layer_map = between(base, layers, "predicted")
    return apply_layer_map(
        base,
        layer_map,
        operator="lesa",
        arguments={"layers": len(layer_map), "seed": seed},
        seed=seed,
    )
