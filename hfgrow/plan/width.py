"""The width engine: axis maps applied to a plan of any family.

Every tensor grows along its own axes: what it writes takes the forward map, what it reads the
backward map. The residual stream is lifted isometrically, `P^T P = (D/d) I`, so that every RMSNorm
keeps its epsilon and its gains:

    mean_D((P h)^2) = (1/D) h^T P^T P h = mean_d(h^2)

Sources: Chen et al. 2016, Net2Net, https://arxiv.org/abs/1511.05641; Samragh et al. 2024, Scaling
Smart (HyperCloning), https://arxiv.org/abs/2409.12903; Wang et al. 2023, LEMON,
https://arxiv.org/abs/2310.07999
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from typing import Any

from hfgrow.errors import UsageError, argument, printable
from hfgrow.plan.axes import FRESH, AxisMap, Span, identity, joined, product, without_factors
from hfgrow.plan.depth import HIDDEN, initial_std
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.table import AXIS_KEYS, Config, Dimension, Family, Kind, Role, layer_of
from hfgrow.plan.plan import GrowthPlan, GrowthStep, TensorPlan, in_place
from hfgrow.plan.tensors import Blend, Fill, Fresh, Lift, Noise, Recipe, leaves

# Wider than any model; a bound on what a typing error can ask for.
MAX_WIDTH = 1 << 20
# From a role and the standard deviation of fresh weights to what stands in fresh rows and columns.
FreshStyle = Callable[[Role, float], Fresh]
# From a tensor's name, its lift, and the plan to another recipe: for rules of a single method.
Rule = Callable[[str, Lift, GrowthPlan], Recipe]


def no_fresh(role: Role, std: float) -> Fresh:
    """Leave what has no source at zero."""
    return Fresh()


def random_in(role: Role, std: float) -> Fresh:
    """Make random what new units read with and what reads them; what they write stays zero.

    So gradients reach all of it: were both sides zero, neither would ever move.
    """
    if role.kind is not Kind.LINEAR or role.dimensions[0] == HIDDEN:
        return Fresh()
    return Fresh(rows=std, columns=std, corner=std)


@dataclass(frozen=True, kw_only=True)
class WidthGrowth:
    """What a width operator asks of the engine.

    Attributes:
        maps: The maps of the axes that grow, by name.
        noise: The amplitude of the noise that copies cancel; 0 leaves copies proportional.
        seed: Seeds noise and fresh weights.
        fresh: What stands where there is no source.
        rule: The last word on linear maps and their biases.
        query_gain: What the gain of a norm over each query is multiplied by besides.
    """

    maps: Mapping[str, AxisMap]
    noise: float = 0.0
    seed: int = 0
    fresh: FreshStyle = no_fresh
    rule: Rule | None = None
    query_gain: float = 1.0


def apply_width(base: GrowthPlan, growth: WidthGrowth, step: GrowthStep) -> GrowthPlan:
    """Return the plan of the wider model.

    Args:
        base: The plan to grow.
        growth: Its axes and how they grow.
        step: What is recorded, without the layer map; its operator keys what is drawn.

    Raises:
        UsageError: The family cannot grow so, or transformers would refuse the config.
    """
    family = FAMILIES[base.family]
    _check_axes(family, growth.maps)
    config = _wider_config(base, family, growth.maps)
    lift = _Lifting(base, family, growth, step.operator)
    tensors = {name: replace(t, recipe=lift.tensor(name, t)) for name, t in base.tensors.items()}
    axes = {axis: without_factors(axis_map) for axis, axis_map in growth.maps.items()}
    step = replace(in_place(base, step), axes=axes)
    return replace(base, config=config, tensors=tensors, steps=(*base.steps, step))


class _Lifting:
    """The lift of every tensor of one growth."""

    def __init__(
        self, base: GrowthPlan, family: Family, growth: WidthGrowth, operator: str
    ) -> None:
        self._base, self._family, self._growth = base, family, growth
        self._operator = operator
        self._sizes = family.sizes(base.config)
        self._dimension = cache(self._map_of)
        self._gains = cache(self._gain_map)
        self._roles = family.roles(base.config)
        self._outer = {role.tensor: role for role in (*family.outer, family.head)}
        hidden = growth.maps.get("hidden", identity(self._sizes["hidden"]))
        self._ratio = hidden.size / hidden.base
        self._tied = family.head.tensor not in base.tensors
        self._embeddings = base.tensors[family.embeddings.tensor]

    def tensor(self, name: str, tensor: TensorPlan) -> Recipe:
        """Return the recipe of a tensor of the wider model."""
        found = layer_of(name)
        role = self._roles[found[1]] if found else self._outer[name]
        if role.kind is Kind.GAIN:
            return self._lifted_gain(role, tensor)
        maps = [self._dimension(dimension) for dimension in role.dimensions]
        if role.kind is Kind.EMBEDDING:
            maps[1] = maps[1].dual.scaled(1 / self._embedding_factor())
        if all(axis_map.is_identity for axis_map in maps):
            return tensor.recipe
        if role.kind is Kind.BIAS:
            if tensor.recipe == Fill(tensor.shape, 0.0):
                return Fill((maps[0].size,), 0.0)
            return self._ruled(name, Lift(tensor.recipe, maps[0]))
        shape = (maps[0].size, maps[1].size)
        key = f"{self._growth.seed}/{self._operator}/{name}/{shape[0]}x{shape[1]}"
        noise = None
        if role.kind is Kind.LINEAR and self._growth.noise and maps[1].has_copies:
            noise = Noise(key, self._growth.noise)
        std = initial_std(role, maps[1].size, self._base.num_hidden_layers)
        fresh = replace(self._growth.fresh(role, std), key=key)
        if tensor.recipe == Fill(tensor.shape, 0.0) and not fresh.is_random:
            # Noise is relative to the row it is added to.
            return Fill(shape, 0.0)
        lift = Lift(tensor.recipe, maps[0], maps[1], noise, fresh)
        return self._ruled(name, lift) if role.kind is Kind.LINEAR else lift

    def _ruled(self, name: str, lift: Lift) -> Recipe:
        return self._growth.rule(name, lift, self._base) if self._growth.rule else lift

    def _lifted_gain(self, role: Role, tensor: TensorPlan) -> Recipe:
        """Return copies of a gain; that of the final norm undoes what tied embeddings add."""
        factor = self._gain_factor(role)
        tied = self._tied and role is self._family.final_norm
        axis_map = self._gains(role.dimensions[0], factor, tied)
        centred = self._family.centred_gains
        if axis_map.is_identity:
            return tensor.recipe
        fresh = Fresh(value=0.0 if centred else 1.0)
        lift = Lift(tensor.recipe, axis_map, fresh=fresh)
        if centred and factor != 1:
            # 1 + w' = factor (1 + w)
            return Blend(((1.0, lift), (1.0, Fill(lift.shape, factor - 1))))
        return lift

    def _gain_factor(self, role: Role) -> float:
        if role is self._family.final_norm:
            return 1 / (self._ratio * self._embedding_factor()) if self._tied else 1.0
        if role.dimensions[0] == (("hidden",),) or "qk_dim" not in self._growth.maps:
            return 1.0
        # Queries and keys that are normalised have no say in the scale of the attention logits.
        k = self._growth.maps["qk_dim"].size / self._sizes["qk_dim"]
        of_query = self._growth.query_gain if "q_norm" in role.tensor else 1.0
        return of_query * (1.0 if self._family.softmax_scale_key else k**0.25) / sqrt(k)

    def _embedding_factor(self) -> float:
        """Return what the embeddings are multiplied by where the class scales with the width."""
        scale, hidden = self._family.embedding_scale, self._sizes["hidden"]
        dtype = self._embeddings.dtype
        stored = next((leaf.dtype for leaf in leaves(self._embeddings.recipe)), dtype)
        if scale is None or self._ratio == 1:
            return 1.0
        return scale(hidden, stored) / scale(round(hidden * self._ratio), dtype)

    def _map_of(self, dimension: Dimension) -> AxisMap:
        parts = []
        for axes in dimension:
            maps = [self._growth.maps.get(axis, identity(self._sizes[axis])) for axis in axes]
            part = maps[0]
            for axis_map in maps[1:]:
                part = product(part, axis_map)
            parts.append(part)
        return parts[0] if len(parts) == 1 else joined(parts)

    def _gain_map(self, dimension: Dimension, factor: float, tied: bool) -> AxisMap:
        """Return the map of a gain: copies times `factor`; backward is what its gradient needs.

        That is the share of what reads each copy; tied embeddings read as they write.
        """
        carried = self._dimension(dimension)
        if carried.is_identity and factor == 1:
            return carried
        if not carried.preserves_mean_square():
            raise UsageError(
                f"a norm of {self._family.model_type} spans {' and '.join(dimension[0])}, so each "
                "index must have the same number of copies, and none can be new",
                hint="choose a multiple of the base's, with hyperclone-noisy",
            )
        ratio = carried.size / carried.base
        return AxisMap(
            carried.base,
            tuple(
                Span(s.start, s.length, 0.0, 0.0)
                if s.start == FRESH
                else Span(
                    s.start,
                    s.length,
                    factor,
                    s.forward * (s.forward / ratio if tied else s.backward) / factor,
                )
                for s in carried.spans
            ),
        )


def check_width(size: int) -> None:
    """Refuse a width that nobody can mean.

    Raises:
        UsageError: It is above `MAX_WIDTH`.
    """
    if size > MAX_WIDTH:
        raise UsageError(f"a width of {printable(size, 40)} is more than the {MAX_WIDTH} of hfgrow")


def _check_axes(family: Family, maps: Mapping[str, AxisMap]) -> None:
    for axis in maps:
        if axis in family.fixed_axes:
            others = {"hidden", "ffn"} - family.fixed_axes.keys()
            raise UsageError(
                f"{AXIS_KEYS.get(axis, axis)} of {family.model_type} cannot grow: "
                f"{family.fixed_axes[axis]}",
                hint=f"grow {argument('hidden_size')} or {argument('ffn')} alone" if others else "",
            )


def _wider_config(base: GrowthPlan, family: Family, maps: Mapping[str, AxisMap]) -> dict[str, Any]:
    sizes = family.sizes(base.config) | {axis: axis_map.size for axis, axis_map in maps.items()}
    check_width(sizes["heads"] * sizes["head_dim"])
    if family.heads_divide_hidden and sizes["hidden"] % sizes["heads"]:
        possible = sizes["heads"] * -(-sizes["hidden"] // sizes["heads"])
        raise UsageError(
            f"hidden_size {sizes['hidden']} is no multiple of num_attention_heads "
            f"{sizes['heads']}, which transformers wants of a {family.model_type}",
            hint=f"try {argument('hidden_size', possible)}",
        )
    if sizes["heads"] % sizes["kv_heads"]:
        raise UsageError(
            f"num_attention_heads {sizes['heads']} is no multiple of num_key_value_heads "
            f"{sizes['kv_heads']}",
            hint=f"try "
            f"{argument('heads', sizes['kv_heads'] * -(-sizes['heads'] // sizes['kv_heads']))}",
        )
    config = dict(base.config)
    for axis in maps:
        if axis in AXIS_KEYS:
            config[AXIS_KEYS[axis]] = sizes[axis]
    if maps.keys() & {"hidden", "heads", "head_dim"} and "head_dim" not in family.fixed_axes:
        # Left out, it would be computed anew as hidden_size / num_attention_heads.
        config["head_dim"] = sizes["head_dim"]
    if config.get("num_key_value_heads") is not None or "kv_heads" in maps or "heads" in maps:
        config["num_key_value_heads"] = sizes["kv_heads"]
    config |= dict(family.compensated(base.config, config) if family.compensated else {})
    if objection := family.objection(config):
        raise UsageError(
            f"transformers would refuse the grown config.json: {objection}",
            hint=_heads_along(base.config, config, family),
        )
    return config


def _heads_along(base: Config, grown: Config, family: Family) -> str:
    """Return the nearest hidden size and heads in the proportion of the base that will do."""
    hidden, heads = base["hidden_size"], base["num_attention_heads"]
    if hidden % heads:
        return ""
    each, kv_heads = hidden // heads, family.sizes(grown)["kv_heads"]
    least = max(-(-grown["hidden_size"] // each), grown["num_attention_heads"])
    num_heads = kv_heads * -(-least // kv_heads)
    sizes = {"hidden_size": num_heads * each, "num_attention_heads": num_heads}
    if family.objection({**grown, **sizes}):
        return ""
    return (
        f"grow the heads along, which keeps hidden_size / num_attention_heads at {each}: "
        f"{argument('hidden_size', num_heads * each)} {argument('heads', num_heads)}"
    )
