"""Learned growth (G_learn): the plan of tensors that learned maps make, and the maps they need.

Every tensor of layer `i` is `W'_i = R (sum over j of c[i, j] W_j) C^T`: a mix of that tensor in all
layers of the base, its rows and columns mapped to the grown axes. Kinds of tensors have depth maps
`c` of their own; what writes the residual stream, what reads it, and the gains of norms have maps
of their own, shared by all layers. Query and key-value heads are mapped as wholes, so that rotary
pairs never mix. An axis that does not grow has no map.

The maps lie in a file beside the model, so that anybody can make the tensors again; how they were
learned is `hfgrow.train.learn`.

Sources: Wang et al. 2023, "Learning to Grow Pretrained Models for Efficient Transformer Training"
(LiGO), https://arxiv.org/abs/2303.00980, Sec. 3; Du et al. 2024, "Stacking Your Transformers",
https://arxiv.org/abs/2405.15319, Sec. 3.1 and App. A, G_learn
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from hfgrow.errors import UsageError, argument, growth, printable
from hfgrow.plan.axes import AxisMap
from hfgrow.plan.depth import apply_layer_map, composed
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.llama import ATTENDED, FFN, HIDDEN, KEY, QUERY, VALUE
from hfgrow.plan.families.table import Dimension, Kind, Role, layer_of, layer_prefix
from hfgrow.plan.operators.operator import (
    STACKING_PAPER,
    LearningCost,
    Mark,
    Operator,
    check_seed,
    operator,
    target_layers,
)
from hfgrow.plan.plan import GrowthPlan, LayerSource, SourceFile, TensorPlan
from hfgrow.plan.tensors import Learned, Recipe, Stored
from hfgrow.plan.width import WidthGrowth, apply_width
from hfgrow.plan.width_maps import copying_maps, target_widths

# The name of a map -> its shape.
Shapes = Mapping[str, tuple[int, int]]
# Opens the file of maps of a name: where each map of these shapes lies, the file, its size.
OpenMaps = Callable[[str | None, Shapes], tuple[dict[str, Stored], Path, SourceFile]]
DTYPE = "F32"

LEARN = "learn"
Init = Literal["fp", "stack", "ligo"]
INITS: tuple[str, ...] = get_args(Init)
# Of a growth that is not told how long to learn.
DEFAULT_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnArguments:
    """The arguments of the step; how it was learned is None where that is not known.

    Attributes:
        g: Growth factor of the depth.
        layers: Target depth.
        width_g: Growth factor of every width.
        hidden_size: Target hidden_size.
        ffn: Target intermediate_size.
        heads: Target num_attention_heads.
        kv_heads: Target num_key_value_heads.
        init: What the maps begin as: the same function (fp), the layers repeated (stack), or as in
            the paper (ligo).
        steps: Steps; 0 keeps the init.
        batch_tokens: Tokens of a step.
        sequence_length: Tokens of a sequence.
        lr: The peak learning rate.
        seed: Seeds the order of the text and the maps.
        maps: The file of the maps, beside the model.
        text: What was learned from, in words.
        text_sha256: The hash of what decides its tokens and their order.
        initial_loss: The held-out loss of the init, nats per token.
        loss: That of the maps that were kept.
        kept_step: After how many steps those stood; 0 is the init.
        exact_flops: What learning cost: the FLOPs of the grown model's matrices and attention,
            forward and backward; the products of the maps themselves are not counted.
        seconds: How long it took, on one device.
    """

    g: int | None = None
    layers: int | None = None
    width_g: int | None = None
    hidden_size: int | None = None
    ffn: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    init: Annotated[Init, Mark.NAMED] = "fp"
    steps: Annotated[int | None, Mark.VARIANT] = None
    batch_tokens: Annotated[int | None, Mark.VARIANT] = None
    sequence_length: Annotated[int | None, Mark.VARIANT, Mark.BY_RUN] = None
    lr: Annotated[float | None, Mark.VARIANT] = None
    seed: Annotated[int | None, Mark.VARIANT] = None
    maps: Annotated[str | None, Mark.VARIANT, Mark.BY_RUN] = None
    text: Annotated[str | None, Mark.OUTCOME] = None
    text_sha256: Annotated[str | None, Mark.OUTCOME] = None
    initial_loss: Annotated[float | None, Mark.OUTCOME] = None
    loss: Annotated[float | None, Mark.OUTCOME] = None
    kept_step: Annotated[int | None, Mark.OUTCOME] = None
    exact_flops: Annotated[float | None, Mark.OUTCOME] = None
    seconds: Annotated[float | None, Mark.OUTCOME] = None

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise UsageError(
                f"{argument('init')} must be one of {', '.join(INITS)}, not {self.init}"
            )
        if self.width_g is not None and (given := self._other_widths):
            raise UsageError(
                f"{argument('width_g')} multiplies every width; leave out {argument(given[0])}, "
                f"or it"
            )

    @classmethod
    def of(cls, arguments: Mapping[str, object]) -> "LearnArguments":
        """Return the arguments of a step, each of its own type.

        Raises:
            UsageError: One is unknown, or no value of it.
        """
        learn.check(arguments)
        given: Mapping[str, Any] = arguments
        return cls(**given)

    def check(self) -> None:
        """Refuse numbers that nothing can be learned with.

        Raises:
            UsageError: One of them cannot be.
        """
        check_seed(self.seed or 0)
        if self.steps is not None and not 0 <= self.steps <= 1_000_000:
            raise UsageError(f"{argument('steps')} must be from 0 to 1000000, not {self.steps}")
        if self.lr is not None and not 0 < self.lr <= 1:
            raise UsageError(f"{argument('lr')} must be above 0 and at most 1, not {self.lr}")
        for name, value in (
            ("batch_tokens", self.batch_tokens),
            ("sequence_length", self.sequence_length),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{argument(name)} must be at least 1, not {value}")

    @property
    def grows_depth(self) -> bool:
        """Whether another depth is asked for."""
        return self.g is not None or self.layers is not None

    @property
    def grows_width(self) -> bool:
        """Whether another width is asked for."""
        return self.width_g is not None or bool(self._other_widths)

    @property
    def recorded(self) -> dict[str, object]:
        """All that is given, by name."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }

    @property
    def _other_widths(self) -> list[str]:
        widths = {
            "hidden_size": self.hidden_size,
            "ffn": self.ffn,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
        }
        return [name for name, size in widths.items() if size is not None]


def _cost(arguments: Mapping[str, object]) -> LearningCost:
    """Return what the arguments of a recorded step say; what cannot be is unknown."""
    keys = ("steps", "batch_tokens", "exact_flops", "seconds")
    steps, batch, exact_flops, seconds = (_not_negative(arguments.get(key)) for key in keys)
    tokens = None if steps is None or batch is None else int(steps) * int(batch)
    return LearningCost(tokens, exact_flops, seconds)


def _not_negative(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return value
    return None


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
        why = "sizes have a part in its layers that no map of tensors undoes"
        hint = "zero-depth and hyperclone-noisy grow it and keep the function"
        if base.derived is not None:
            why = "a map is one of axes, and hfgrow has no table that names those of its tensors"
            hint = growth("zero-depth", g=2)
        raise UsageError(
            f"hfgrow learn knows {', '.join(LEARNABLE)}, not {printable(base.family)}: {why}",
            hint=hint,
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
            f"there is no target: {argument('g')} or {argument('layers')} for depth, "
            f"{argument('width_g')}, {argument('hidden_size')}, {argument('ffn')}, "
            f"{argument('heads')} or {argument('kv_heads')} for width",
            hint=f"try {argument('g', 2)}",
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


def learned_plan(
    base: GrowthPlan, arguments: LearnArguments, open_maps: OpenMaps | None
) -> GrowthPlan:
    """Return the plan of a model that learned maps make.

    It promises the same function where the maps that were kept are an init that keeps it.

    Args:
        base: The plan to grow.
        arguments: What was asked for, and the file of the maps.
        open_maps: Opens that file; without it the plan can be shown, not written.
    """
    growth = learned_growth(base, arguments)
    files = dict(base.files)
    if open_maps is None:
        arguments.check()
        maps = draft_maps(map_shapes(base, growth))
    else:
        maps, path, file = open_maps(arguments.maps, map_shapes(base, growth))
        files[str(path)] = file
    config, layer_map = _grown_config(base, growth)
    tensors = {}
    for name in base.tensors:
        found = layer_of(name)
        if found is None:
            tensors[name] = _learned(base, growth, name, maps)
        elif found[0] == 0:
            for i in range(len(layer_map)):
                new = layer_prefix(i) + found[1]
                tensors[new] = _learned(base, growth, new, maps)
    keeps = arguments.init == "fp" and arguments.kept_step == 0
    step = learn.step(arguments.recorded, preserves_function=keeps)
    return replace(
        base,
        config=config,
        layer_map=tuple(composed(base.layer_map, source) for source in layer_map),
        tensors=tensors,
        files=files,
        steps=(*base.steps, replace(step, layer_map=layer_map)),
    )


@operator(
    LEARN,
    axis="depth and width",
    preserves_function=False,
    formula="W'_i = R (sum over j of c[i, j] W_j) C^T, with learned c, R and C",
    paper=(
        "Wang et al. 2023, Learning to Grow Pretrained Models for Efficient Transformer Training, "
        f"https://arxiv.org/abs/2303.00980; {STACKING_PAPER}"
    ),
    arguments=LearnArguments,
    needs_maps=True,
    has_command=True,
    cost=_cost,
)
def learn(
    own: Operator[...], base: GrowthPlan, /, *, open_maps: OpenMaps | None = None, **arguments: Any
) -> GrowthPlan:
    """Grow depth and width by maps that are learned from text (G_learn, LiGO).

    Not function preserving, unless the init is kept. `LearnArguments` says what it takes.
    """
    return learned_plan(base, LearnArguments(**arguments), open_maps)


def map_shapes(base: GrowthPlan, growth: LearnedGrowth) -> dict[str, tuple[int, int]]:
    """Return the shape of every map that a growth learns, by name: [grown, base] units."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, role in _roles(base).items():
        for key, axis, _ in _axis_maps(growth, base, role):
            shapes[key] = (growth.axes[axis].size, growth.axes[axis].base)
        if growth.is_deeper and layer_of(name):
            shapes[depth_map(name)] = (len(growth.sources), base.num_hidden_layers)
    return shapes


def depth_map(name: str) -> str:
    """Return the depth map of a layer's tensor; weight and bias of a matrix share it."""
    found = layer_of(name)
    assert found is not None
    return f"depth.{found[1].rpartition('.')[0]}"


def _grown_config(
    base: GrowthPlan, growth: LearnedGrowth
) -> tuple[Mapping[str, Any], tuple[LayerSource, ...]]:
    """Return the config of the grown model, and its layer map."""
    grown = base
    layer_map = tuple(LayerSource(i) for i in range(base.num_hidden_layers))
    if growth.is_deeper:
        layer_map = tuple(LayerSource(source.layer, "learned") for source in growth.sources)
        plain = [source.layer for source in growth.sources]
        grown = apply_layer_map(base, plain, learn.step({}))
    if growth.axes:
        grown = apply_width(grown, WidthGrowth(maps=growth.axes), learn.step({}))
    return grown.config, layer_map


def _learned(
    base: GrowthPlan, growth: LearnedGrowth, name: str, maps: Mapping[str, Stored]
) -> TensorPlan:
    """Return the plan of a tensor of the output."""
    found = layer_of(name)
    source = name if found is None else layer_prefix(0) + found[1]
    own = growth.sources[found[0]].layer if found else 0
    layers = [name]
    if found is not None:
        wanted = range(base.num_hidden_layers) if growth.is_deeper else [own]
        layers = [layer_prefix(j) + found[1] for j in wanted]
    recipe = Learned(
        tuple(base.tensors[layer].recipe for layer in layers),
        depth=maps[depth_map(name)] if growth.is_deeper and found else None,
        layer=found[0] if found else 0,
    )
    for key, _, side in _axis_maps(growth, base, _roles(base)[source]):
        unit = base.tensors[source].shape[side] // maps[key].shape[1]
        if side == 0:
            recipe = replace(recipe, rows=maps[key], row_unit=unit)
        else:
            recipe = replace(recipe, cols=maps[key], col_unit=unit)
    whole: Recipe = recipe if recipe.maps else recipe.layers[0]
    return TensorPlan(base.tensors[source].dtype, whole)


def _axis_maps(
    growth: LearnedGrowth, base: GrowthPlan, role: Role
) -> Iterator[tuple[str, str, int]]:
    """Yield the maps of a tensor: name, axis, and the side of the tensor that they are of."""
    family = FAMILIES[base.family]
    sides: list[tuple[str, str] | None]
    if role.kind is Kind.GAIN:
        gain = FINAL if role is family.final_norm else GAIN
        sides = [(gain, "hidden") if role.dimensions[0] == HIDDEN else None]
    elif role.kind is Kind.EMBEDDING:
        sides = [None, ROWS[HIDDEN]]
    else:
        columns = role.dimensions[1:]
        sides = [ROWS.get(role.dimensions[0]), *map(COLUMNS.get, columns)]
    for side, found in enumerate(sides):
        if found is not None and found[1] in growth.axes:
            yield *found, side


def _roles(base: GrowthPlan) -> dict[str, Role]:
    """Return the role of every tensor of the first layer and outside the layers."""
    family = FAMILIES[base.family]
    layer = {layer_prefix(0) + name: role for name, role in family.roles(base.config).items()}
    outer = {role.tensor: role for role in (*family.outer, family.head)}
    return {name: role for name, role in (layer | outer).items() if name in base.tensors}


def draft_maps(shapes: Shapes) -> dict[str, Stored]:
    """Return maps of these shapes as if they lay in a file."""
    return {name: Stored("", name, 0, shape, DTYPE) for name, shape in shapes.items()}
