"""LIDAS: the layers around the exact middle twice.

Source: Kapl et al. 2025, "Do Depth-Grown Models Overcome the Curse of Depth?",
https://arxiv.org/abs/2512.08819
"""

from hfgrow.errors import UsageError
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan


def lidas(base: GrowthPlan, *, block: int | None = None) -> GrowthPlan:
    """Repeat the layers around the exact middle in place.

    With `s = floor((l - b) / 2)` the output is 0 .. s+b-1, then s .. l-1. The same as midas where
    the number of blocks is odd. One stage of gradual growth. Not function preserving.

    Args:
        base: The plan to grow, with `l` layers.
        block: Layers to repeat, `b`, from 1 to the number of layers. Needed, as for midas.

    Raises:
        UsageError: No block, or one out of range.
    """
    num_layers = base.num_hidden_layers
    if block is None:
        raise UsageError(
            "lidas needs the number of layers to repeat, --block",
            hint=f"try --block {max(num_layers // 4, 1)}",
        )
    if not 1 <= block <= num_layers:
        raise UsageError(f"--block must be from 1 to the {num_layers} layers, not {block}")
    start = (num_layers - block) // 2
    layer_map = [*range(start + block), *range(start, num_layers)]
    return apply_layer_map(base, layer_map, operator="lidas", arguments={"block": block})
