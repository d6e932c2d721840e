"""Where a learned growth leads, which maps it has, and what those begin as in depth."""

from collections.abc import Mapping
from dataclasses import dataclass

from hfgrow.errors import UsageError, printable
from hfgrow.learned_arguments import LearnArguments
from hfgrow.operators.depth_arguments import target_layers
from hfgrow.plan.axes import AxisMap
from hfgrow.plan.families.llama import ATTENDED, FFN, HIDDEN, KEY, QUERY, VALUE
from hfgrow.plan.families.table import Dimension
from hfgrow.plan.plan import GrowthPlan, LayerSource
from hfgrow.plan.width_maps import copying_maps, target_widths

# Families whose layers are these maps and nothing else that a size has a part in.
LEARNABLE = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
# The dimension that a matrix writes -> the map of its rows, and the axis that grows.
ROWS: Mapping[Dimension, tuple[str, str]] = {
    HIDDEN: ("hidden.write", "hidden"),
    FFN: ("ffn.up", "ffn"),
    QUERY: ("heads.query", "heads"),
    KEY: ("kv_heads.key", "kv_heads"),
    VALUE: ("kv_heads.value", "kv_heads"),
}
# The dimension that a matrix reads -> the map of its columns, and the axis.
COLUMNS: Mapping[Dimension, tuple[str, str]] = {
    HIDDEN: ("hidden.read", "hidden"),
    FFN: ("ffn.down", "ffn"),
    ATTENDED: ("heads.output", "heads"),
}
# What undoes the copies of an axis.
READERS = tuple(name for name, _ in COLUMNS.values())
# The gains of the layers, and that of the final norm.
GAIN, FINAL = "hidden.gain", "hidden.final"


@dataclass(frozen=True)
class LearnedGrowth:
    """Where a learned growth leads, and what it begins with.

    Attributes:
        sources: For every layer of the output the layer of the base that its depth maps begin as,
            and `zero` where its branches begin as zeros.
        is_deeper: Whether the depth grows; otherwise there are no depth maps.
        axes: The maps that fill the axes which grow with copies.
    """

    sources: tuple[LayerSource, ...]
    is_deeper: bool
    axes: Mapping[str, AxisMap]


def learned_growth(base: GrowthPlan, arguments: LearnArguments) -> LearnedGrowth:
    """Return where a learned growth of a base leads.

    Raises:
        UsageError: The family cannot, there is no target, or one that is not larger.
    """
    if base.family not in LEARNABLE:
        raise UsageError(
            f"hfgrow learn knows {', '.join(LEARNABLE)}, not {printable(base.family)}: sizes have "
            "a part in its layers that no map of tensors undoes",
            hint="zero-depth and hyperclone-noisy grow it and keep the function",
        )
    num_layers = base.num_hidden_layers
    target = num_layers
    if arguments.grows_depth:
        target = target_layers(base, arguments.g, arguments.layers)
    widths = None
    if arguments.grows_width:
        widths = target_widths(
            base,
            arguments.width_g,
            arguments.hidden_size,
            arguments.ffn,
            arguments.heads,
            arguments.kv_heads,
        )
    if target == num_layers and widths is None:
        raise UsageError(
            "there is no target: --g or --layers for depth, --width-g, --hidden-size, --ffn, "
            "--heads or --kv-heads for width",
            hint="try --g 2",
        )
    return LearnedGrowth(
        sources=_first_sources(arguments.init, num_layers, target),
        is_deeper=target > num_layers,
        axes={} if widths is None else copying_maps(widths),
    )


def _first_sources(init: str, num_layers: int, target: int) -> tuple[LayerSource, ...]:
    """Return what the depth maps begin as: zero-depth, the stack, or layers in a cycle."""
    if init == "fp":
        sources = [i * num_layers // target for i in range(target)]
        return tuple(
            LayerSource(layer, "zero" if i and sources[i - 1] == layer else "copy")
            for i, layer in enumerate(sources)
        )
    full, rest = divmod(target, num_layers)
    last = range(num_layers - rest, num_layers) if init == "stack" else range(rest)
    return tuple(LayerSource(layer) for layer in (*list(range(num_layers)) * full, *last))
