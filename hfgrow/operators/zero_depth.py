"""Zero blocks: copies of layers that do nothing yet.

Source: Wang et al. 2023, "LEMON: Lossless Model Expansion", https://arxiv.org/abs/2310.07999;
Wu et al. 2024, "LLaMA Pro: Progressive LLaMA with Block Expansion",
https://arxiv.org/abs/2401.02415, Sec. 3; G_zero in depth of https://arxiv.org/abs/2405.15319
"""

from hfgrow.errors import UsageError
from hfgrow.operators.depth_arguments import check_divides, target_arguments, target_layers
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.plan import GrowthPlan, LayerSource


def zero_depth(
    base: GrowthPlan, *, g: int | None = None, layers: int | None = None, every: int | None = None
) -> GrowthPlan:
    """Insert copies of layers that add nothing at first.

    Layer `i` of the output comes from layer `floor(i * l / L)` of the base; the first of each is a
    copy, the others have zeros at their branch ends. Function preserving: the logits stay the same
    bit for bit.

    Args:
        base: The plan to grow, with `l` layers.
        g: Growth factor: how many times each layer stands, at least 2.
        layers: Target depth `L` instead of g; any depth above that of the base.
        every: Instead of g and layers: one zero copy behind each group of this many layers, of the
            group's last (LLaMA Pro). Divides the number of layers.

    Raises:
        UsageError: Not exactly one of the three, not deeper than the base, or groups that do not
            divide it.
    """
    num_layers = base.num_hidden_layers
    if sum(value is not None for value in (g, layers, every)) != 1:
        raise UsageError("zero-depth takes one of --g, --layers and --every", hint="try --g 2")
    if every is not None:
        check_divides(base, "--every", every)
        sources = [i for i in range(num_layers) for _ in range(1 + ((i + 1) % every == 0))]
        arguments: dict[str, object] = {"every": every}
    else:
        target = target_layers(base, g, layers)
        sources = [i * num_layers // target for i in range(target)]
        arguments = target_arguments(g, layers)
    layer_map = [
        LayerSource(layer, "zero" if i and sources[i - 1] == layer else "copy")
        for i, layer in enumerate(sources)
    ]
    return apply_layer_map(
        base, layer_map, operator="zero-depth", arguments=arguments, preserves_function=True
    )
