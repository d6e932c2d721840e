"""The depth engine: a layer map applied to a plan of any family.

Every tensor of layer `j` of the output is made from the same-named tensor of layer `layer_map[j]`
of the base; what lies outside the layers stays. Lists in the config with one entry for each layer
are re-indexed by the same map.

A layer is a `copy`; `zero` is a copy that does nothing yet; `average` is the mean of a layer and
the next; `aligned` is too, but rows of the lower one are first put in the order of the upper one,
and it does nothing yet; `predicted` is too, but for its matrices, which are predicted from those of
all layers; `random` is fresh, its branch ends multiplied by a mask. A *branch end* is the last
tensor of attention or MLP before the residual stream: o_proj and down_proj, or the norm behind them
where there is one. A layer whose branch ends are zero passes the stream on unchanged.

Source: Du et al. 2024, "Stacking Your Transformers", https://arxiv.org/abs/2405.15319, App. I.2
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any

from hfgrow.errors import UsageError, growth, printable
from hfgrow.plan.axes import AxisMap, Span, identity
from hfgrow.plan.elsewhere import with_true_pattern
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.derived import DerivedFamily, pattern_of
from hfgrow.plan.families.rewrite import rewritten
from hfgrow.plan.families.table import Family, Kind, Role, layer_of, layer_prefix
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource, TensorPlan
from hfgrow.plan.tensors import Aligned, Blend, Fill, Lift, Normal, Predicted, Recipe

# More layers than any checkpoint needs; a bound on what a typing error can ask for, and on the
# index that lists their tensors.
MAX_LAYERS = 10_000


def apply_layer_map(
    base: GrowthPlan,
    layer_map: Sequence[int | LayerSource],
    step: GrowthStep,
    *,
    seed: int = 0,
    mask: float = 0.0,
    regularization: float = 0.0,
) -> GrowthPlan:
    """Return the plan whose layer `j` is made from layer `layer_map[j]` of `base`.

    Args:
        base: The plan to grow.
        layer_map: For every layer of the output, the 0-based layer of the base, and its mode if
            that is not `copy`.
        step: What is recorded, without the layer map.
        seed: Seeds the layers of mode `random` and `predicted`.
        mask: The factor on the branch ends of random layers.
        regularization: What smooths the transport plans of layers of mode `aligned`.

    Raises:
        UsageError: The map asks for more layers than `MAX_LAYERS`.
    """
    check_num_layers(len(layer_map))
    sources = tuple(LayerSource(item) if isinstance(item, int) else item for item in layer_map)
    if base.derived is not None:
        return _by_derived_family(base, base.derived, sources, step, seed, mask)
    family = FAMILIES[base.family]
    config = grown_config(base.config, family, [source.layer for source in sources])
    roles = family.roles(config)
    by_layer: list[dict[str, TensorPlan]] = [{} for _ in range(base.num_hidden_layers)]
    tensors = {}
    for name, tensor in base.tensors.items():
        found = layer_of(name)
        if found is None:
            tensors[name] = tensor
        else:
            by_layer[found[0]][found[1]] = tensor
    if not by_layer:
        by_layer.append(_of_no_layer(base, family, config))
    layers = {suffix: tuple(layer[suffix].recipe for layer in by_layer) for suffix in by_layer[0]}
    for i, source in enumerate(sources):
        for suffix, tensor in by_layer[source.layer].items():
            site = _Site(
                name=layer_prefix(i) + suffix,
                role=roles[suffix],
                centre=_centre(family, roles[suffix]),
                layers=layers[suffix],
                layer=source.layer,
                num_layers=len(sources),
                parts=_parts(family, config, roles[suffix]) if source.mode == "aligned" else (),
                seed=seed,
                mask=mask,
                regularization=regularization,
            )
            tensors[site.name] = replace(tensor, recipe=_MODES[source.mode](site))
    return replace(
        base,
        config=config,
        layer_map=tuple(composed(base.layer_map, source) for source in sources),
        tensors=tensors,
        steps=(*base.steps, replace(step, layer_map=sources)),
    )


def _by_derived_family(
    base: GrowthPlan,
    family: DerivedFamily,
    sources: Sequence[LayerSource],
    step: GrowthStep,
    seed: int,
    mask: float,
) -> GrowthPlan:
    """Grow by a map of layers alone; whether the config says it right is checked by transformers.

    What a layer has may differ from layer to layer, and every copy has what its source has.
    """
    layer_map = [source.layer for source in sources]
    modes = {source.mode for source in sources}
    if modes - {"copy", "zero", "random"}:
        raise UsageError(
            f"{step.operator} mixes layers, for which hfgrow has to know that they are of one kind "
            f"and the roles of their tensors; of a {printable(base.family)} it knows none",
            hint=f"copies: {growth('stack', g=2)}",
        )
    tensors: dict[str, TensorPlan] = {}
    by_layer: list[dict[str, TensorPlan]] = [{} for _ in range(base.num_hidden_layers)]
    for name, tensor in base.tensors.items():
        if (found := family.layer_of(name)) is not None:
            by_layer[found[0]][found[1]] = tensor
        elif name in family.tables:
            table = _by_blocks(tensor, family.tables[name], layer_map, base.num_hidden_layers)
            tensors[name] = replace(tensor, recipe=table)
        else:
            tensors[name] = tensor
    for i, source in enumerate(sources):
        layer = by_layer[source.layer]
        if source.mode != "copy":
            _check_ends(family, source.layer, layer, step.operator)
        for rest, tensor in layer.items():
            name = f"{family.stack}{i}.{rest}"
            if source.mode == "zero":
                tensor = replace(tensor, recipe=_silent(family, rest, tensor.recipe))
            elif source.mode == "random":
                fresh = _fresh(family, rest, tensor.recipe, f"{seed}/{name}", mask)
                tensor = replace(tensor, recipe=fresh)
            tensors[name] = tensor
    try:
        settings = rewritten(
            family.settings_of(base.config), family.settings, layer_map, base.num_hidden_layers
        )
    except UsageError as error:
        details = {**error.details, "layer_map": layer_map}
        raise UsageError(f"{error}", hint=error.hint, details=details) from error
    return replace(
        base,
        config=family.with_settings(base.config, settings),
        layer_map=tuple(composed(base.layer_map, source) for source in sources),
        tensors=tensors,
        steps=(*base.steps, replace(step, layer_map=tuple(sources))),
    )


# The spread of fresh weights where the config says none.
_STD = 0.02


def _silent(family: DerivedFamily, rest: str, recipe: Recipe) -> Recipe:
    """Return a tensor of a layer that adds nothing: a branch end holds one number."""
    end = family.ends.get(pattern_of(rest))
    return recipe if end is None else Fill(recipe.shape, end)


def _fresh(family: DerivedFamily, rest: str, recipe: Recipe, key: str, mask: float) -> Recipe:
    """Return a tensor of a fresh layer, its branch ends times the mask.

    What is no matrix, such as a gain or a decay, is that of the last layer.
    """
    end = family.ends.get(pattern_of(rest))
    if end is not None and (end or not mask):
        return Fill(recipe.shape, end)
    factor = 1.0 if end is None else mask
    if len(recipe.shape) == 2:
        std = float(family.settings.get("initializer_range") or _STD)
        return Normal(recipe.shape, factor * std, key)
    return recipe if factor == 1.0 else Blend(((factor, recipe),))


def _check_ends(
    family: DerivedFamily, number: int, layer: Mapping[str, TensorPlan], operator: str
) -> None:
    """Refuse a layer of which nobody has found out what has to be zero for it to add nothing."""
    said = f"{operator} needs to know what makes a layer of a {printable(family.model_type)} add"
    if not family.ends:
        raise UsageError(
            f"{said} nothing, and no such tensors are known",
            hint=f"copies: {growth('interpolate', g=2)}",
        )
    for rest in layer:
        if pattern_of(rest) not in family.seen:
            raise UsageError(
                f"{said} nothing, which was found out on layers without {printable(rest)}",
                hint=f"copies: {growth('interpolate', g=2)}",
            )
    if not any(pattern_of(rest) in family.ends for rest in layer):
        raise UsageError(
            f"{said} nothing, and layer {number} has none of {printable(', '.join(family.ends))}, "
            "which do in the models that this was found out on",
            hint=f"copies: {growth('interpolate', g=2)}",
        )


def _by_blocks(tensor: TensorPlan, axis: int, layer_map: Sequence[int], num_layers: int) -> Recipe:
    """Return a table whose axis has a block for each layer, for the layers of the map."""
    sizes = tensor.shape
    block = sizes[axis] // num_layers
    mapped = AxisMap(sizes[axis], tuple(Span(i * block, block) for i in layer_map))
    rows, cols = (mapped if i == axis else identity(size) for i, size in enumerate(sizes))
    return Lift(tensor.recipe, rows, cols)


def scale_branches(base: GrowthPlan, factors: Sequence[float]) -> dict[str, TensorPlan]:
    """Return the tensors of a plan with what the branches of a layer add times its factor."""
    family = FAMILIES[base.family]
    roles = family.roles(base.config)
    tensors = dict(base.tensors)
    for name, tensor in base.tensors.items():
        found = layer_of(name)
        if found and roles[found[1]].ends_branch and factors[found[0]] != 1:
            recipe = scaled(family, roles[found[1]], tensor, factors[found[0]])
            tensors[name] = replace(tensor, recipe=recipe)
    return tensors


def scaled(family: Family, role: Role, tensor: TensorPlan, factor: float) -> Recipe:
    """Return a recipe of a tensor's effect times a factor: a centred gain `w` acts as `1 + w`."""
    recipe, centre = tensor.recipe, _centre(family, role)
    if isinstance(recipe, Fill):
        return Fill(recipe.shape, factor * (recipe.value + centre) - centre)
    if centre:
        return Blend(((factor, recipe), (1.0, Fill(recipe.shape, (factor - 1) * centre))))
    return Blend(((factor, recipe),))


@dataclass(frozen=True, slots=True)
class _Site:
    """A tensor of the output, and what its recipe may depend on.

    Attributes:
        name: Its name in the output.
        role: Its role in the layer.
        centre: What its numbers are stored without.
        layers: The tensors of the same role in all layers.
        layer: The source layer.
        num_layers: The depth of the output.
        parts: The rows of each part whose rows may be put in another order; empty if none may.
        seed: Seeds what is fresh.
        mask: The factor on the branch ends of what is fresh.
        regularization: What smooths transport plans.
    """

    name: str
    role: Role
    centre: float
    layers: tuple[Recipe, ...]
    layer: int
    num_layers: int
    parts: tuple[int, ...]
    seed: int
    mask: float
    regularization: float

    @property
    def recipe(self) -> Recipe:
        """The tensor in the source layer."""
        return self.layers[self.layer]

    def filled(self, value: float) -> Recipe:
        """Return a recipe that acts as one number everywhere."""
        return Fill(self.recipe.shape, value - self.centre)


def _copy(site: _Site) -> Recipe:
    return site.recipe


def _zero(site: _Site) -> Recipe:
    return site.filled(0.0) if site.role.ends_branch else site.recipe


def _average(site: _Site) -> Recipe:
    return Blend(((0.5, site.recipe), (0.5, site.layers[site.layer + 1])))


def _aligned(site: _Site) -> Recipe:
    if site.role.ends_branch:
        return site.filled(0.0)
    if not site.parts:
        return _average(site)
    return Aligned(site.recipe, site.layers[site.layer + 1], site.parts, site.regularization)


def _predicted(site: _Site) -> Recipe:
    if len(site.recipe.shape) == 1:
        return _average(site)
    return Predicted(site.layers, site.layer, site.seed)


def _random(site: _Site) -> Recipe:
    mask = site.mask if site.role.ends_branch else 1.0
    if site.role.kind is Kind.BIAS or not mask:
        return site.filled(0.0)
    if site.role.kind is Kind.GAIN:
        return site.filled(mask)
    std = initial_std(site.role, site.recipe.shape[1], site.num_layers)
    return Normal(site.recipe.shape, mask * std, f"{site.seed}/{site.name}")


_MODES: Mapping[str, Callable[[_Site], Recipe]] = {
    "copy": _copy,
    "zero": _zero,
    "average": _average,
    "aligned": _aligned,
    "predicted": _predicted,
    "random": _random,
}


def _centre(family: Family, role: Role) -> float:
    """Return what a tensor's numbers are stored without: a centred gain `w` acts as `1 + w`."""
    return 1.0 if role.kind is Kind.GAIN and family.centred_gains else 0.0


def composed(layers: Sequence[LayerSource], source: LayerSource) -> LayerSource:
    """Return where a layer comes from in the root: a copy of a new layer is as new as that one.

    Args:
        layers: Where those of the base come from; there may be none, for a fresh layer needs none.
        source: Where it comes from in the base.
    """
    if not layers:
        return source
    origin = layers[source.layer]
    return origin if source.mode == "copy" else LayerSource(origin.layer, source.mode)


def _of_no_layer(
    base: GrowthPlan, family: Family, config: Mapping[str, Any]
) -> dict[str, TensorPlan]:
    """Return what a model without layers has in place of one: shapes, and the dtype of the rest."""
    dtype = base.tensors[family.embeddings.tensor].dtype
    shapes = family.shapes({**config, "num_hidden_layers": 1}, tied=True)
    return {
        found[1]: TensorPlan(dtype, Fill(shape, 0.0))
        for name, shape in shapes.items()
        if (found := layer_of(name)) is not None
    }


def grown_config(
    config: Mapping[str, Any], family: Family, layer_map: Sequence[int]
) -> dict[str, Any]:
    """Return the config of the deeper model.

    A list that the model class derives by a rule is written out when the rule, applied to the
    deeper model, would no longer say what the layers were in the base: a copied layer without
    rotary embeddings must stay without.
    """
    grown = dict(config)
    for key in family.layer_counts:
        if key in config:
            grown[key] = len(layer_map)
    if not config["num_hidden_layers"]:
        # The class derives lists of what has none to go on with; no function is to be kept.
        empty = [key for key in family.per_layer_lists if config.get(key) == []]
        return with_true_pattern({key: v for key, v in grown.items() if key not in empty})
    wanted = {key: [old[i] for i in layer_map] for key, old in family.per_layer(config).items()}
    for key, value in wanted.items():
        if config.get(key) is not None:
            grown[key] = value
    by_rule = family.per_layer(grown)
    for key, value in wanted.items():
        if by_rule.get(key) != value:
            grown[key] = value
    grown |= family.compensated(config, grown) if family.compensated else {}
    return with_true_pattern(grown)


def check_num_layers(num_layers: int) -> None:
    """Refuse a depth that nobody can mean.

    Raises:
        UsageError: More than `MAX_LAYERS` layers.
    """
    if num_layers > MAX_LAYERS:
        raise UsageError(
            f"the target has {num_layers} layers, more than the {MAX_LAYERS} that hfgrow plans"
        )


HIDDEN = (("hidden",),)
# What is known by its number in every layer: coordinates of the stream, and experts.
_NUMBERED = {"hidden", "experts"}


def _parts(family: Family, config: Mapping[str, Any], role: Role) -> tuple[int, ...]:
    """Return how many rows each part of a matrix has, if their order is each layer's own."""
    rows, sizes = role.dimensions[0], family.sizes(config)
    if len(role.dimensions) == 1 or any(_NUMBERED & {*axes} for axes in rows):
        return ()
    return tuple(prod(sizes[axis] for axis in axes) for axes in rows)


def initial_std(role: Role, num_inputs: int, num_layers: int) -> float:
    """Return `1 / (sqrt(d_in) L)` for what writes the residual stream, else `sqrt(2 / (5 d_in))`.

    Args:
        role: A linear map or the embeddings.
        num_inputs: `d_in`, the second dimension of the stored shape.
        num_layers: `L`.
    """
    if role.dimensions[0] == HIDDEN:
        return 1 / (sqrt(num_inputs) * num_layers)
    return sqrt(2 / (5 * num_inputs))


# A run of neighbouring layers, and how many times it stands: 345, [10:24] or [10], and then *2.
LAYER_RUN = re.compile(
    r"(?P<layers>\d+|\[\d{1,9}(?::\d{1,9})?\])(?:\*(?P<times>\d{1,9}))?", re.ASCII
)


def run_of(layers: str) -> range:
    """Return the 0-based layers of a run, counted from 1 there; empty if they are no neighbours."""
    if layers.startswith("["):
        first, _, last = layers.strip("[]").partition(":")
        return range(int(first) - 1, int(last or first))
    run = range(int(layers[0]) - 1, int(layers[-1]))
    return run if [*layers] == [str(i + 1) for i in run] else range(0)
