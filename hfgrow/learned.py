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

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.learned_maps import draft_maps, open_maps
from hfgrow.learned_arguments import LEARN, LearnArguments
from hfgrow.learned_growth import COLUMNS, FINAL, GAIN, ROWS, LearnedGrowth, learned_growth
from hfgrow.operators import apply
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.llama import HIDDEN
from hfgrow.plan.families.table import Kind, Role, layer_of, layer_prefix
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource, TensorPlan
from hfgrow.plan.tensors import Learned, Recipe, Stored
from hfgrow.plan.width import WidthGrowth, apply_width


def apply_step(
    plan: GrowthPlan,
    operator: str,
    arguments: Mapping[str, object],
    maps: Path | None = None,
    *,
    is_draft: bool = False,
) -> GrowthPlan:
    """Apply an operator of the table, or a learned growth.

    Args:
        plan: The plan to grow.
        operator: A name in the table, or `learn`.
        arguments: Its arguments by name.
        maps: The folder where the maps of learned growths lie.
        is_draft: Whether a plan will do whose maps are not there yet.

    Raises:
        UsageError: No such operator, or arguments that do not fit; of drafts, that cannot be.
        ModelError: The maps are not there, or not those of this growth.
    """
    if operator != LEARN:
        return apply(plan, operator, arguments)
    return learned_plan(plan, LearnArguments.of(arguments), maps, is_draft=is_draft)


def learned_plan(
    base: GrowthPlan, arguments: LearnArguments, folder: Path | None, *, is_draft: bool = False
) -> GrowthPlan:
    """Return the plan of a model that learned maps make.

    It promises the same function where the maps that were kept are an init that keeps it.

    Args:
        base: The plan to grow.
        arguments: What was asked for, and the file of the maps.
        folder: Where that file lies.
        is_draft: Whether the file need not be there; then the plan can be shown, not written.
    """
    growth = learned_growth(base, arguments)
    files = dict(base.files)
    if is_draft:
        arguments.check()
        maps = draft_maps(map_shapes(base, growth))
    else:
        maps, path, file = open_maps(folder, arguments.maps, map_shapes(base, growth))
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
    preserves = arguments.init == "fp" and arguments.kept_step == 0
    return replace(
        base,
        config=config,
        layer_map=tuple(
            base.layer_map[source.layer]
            if source.mode == "copy"
            else LayerSource(base.layer_map[source.layer].layer, source.mode)
            for source in layer_map
        ),
        tensors=tensors,
        files=files,
        steps=(*base.steps, GrowthStep(LEARN, arguments.recorded, layer_map, preserves)),
    )


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
        grown = apply_layer_map(base, plain, operator=LEARN, arguments={})
    if growth.axes:
        grown = apply_width(
            grown,
            WidthGrowth(maps=growth.axes),
            operator=LEARN,
            arguments={},
            preserves_function=False,
        )
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
