"""Optimizer state grown with the weights, so that training goes on where the base's stood.

    state = {name: optimizer.state[p] for name, p in base.named_parameters()}
    state = hfgrow.grow_optimizer_state(plan, state, "copy-v")
    for name, p in grown.named_parameters():
        grown_optimizer.state[p] = state[name]

Means of gradients (`exp_avg`) take the map of gradients, means of squares (`exp_avg_sq`) the one
with squared coefficients; `hfgrow.gradient` says where the maps are exact.

New entries have no history: zeros. AdamW divides by the root of a second moment that it believes to
be `step` steps old, so a new entry moves at first up to 6.6 times the learning rate at
beta2 = 0.999, and 1.1 times at 0.95: warm up. Tensors that are new as a whole begin at `step` 0.

Schedule-Free AdamW has `z`, a point in weight space, in place of `exp_avg`. What parts it from the
parameters takes the linear part of the weights' own map, and is added to the grown parameters. So
noise and fresh weights stand in `z` too, and `x`, `y` and `z` stay on one line, as
`y = (1 - beta) z + beta x` wants. `k`, `weight_sum` and `lr_max` belong to the parameter groups:
carry them to go on with the same average; reset them, with mode copy-v, to begin a new one.

Sources: Shen et al. 2022, "Staged Training for Transformer Language Models",
https://arxiv.org/abs/2203.06211 (state grown with the weights); "SPARKLING",
https://arxiv.org/abs/2602.02472 (state kept for the first copy); Defazio et al. 2024, "The Road
Less Scheduled", https://arxiv.org/abs/2405.15682 (x, y and z)
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from hfgrow.checkpoint.compute.state_dict import dtype_of, evaluated
from hfgrow.errors import ModelError, UsageError, printable
from hfgrow.plan.families.table import layer_of, layer_prefix
from hfgrow.plan.plan import GrowthPlan, TensorPlan
from hfgrow.plan.tensors import (
    Blend,
    Lift,
    Recipe,
    Stored,
    first_copies,
    gradient,
    leaves,
    linear,
    squared,
)

Mode = Literal["reset", "copy", "copy-v", "asym"]
Tensors = Mapping[str, Any]
# Tensor name -> what an optimizer keeps for it, in the optimizer's words.
State = Mapping[str, Tensors]

_MOMENTS = ("exp_avg", "z", "exp_avg_sq")


def grow_optimizer_state(
    plan: GrowthPlan,
    state: State,
    mode: Mode,
    *,
    base_weights: Tensors | None = None,
    grown_weights: Tensors | None = None,
) -> dict[str, dict[str, Any]]:
    """Grow the state of AdamW or Schedule-Free AdamW by the plan that grew the weights.

    Modes:
        reset: No state; the optimizer begins anew.
        copy: All of it. Copies without noise stay equal for ever, their moments being equal.
        copy-v: `exp_avg_sq`; `exp_avg` is zero, and `z` the parameters themselves.
        asym: `exp_avg_sq`, and `exp_avg` or `z` of first copies; other entries as in copy-v. An
            entry is a first copy if its row, its column and its layer are.

    Args:
        plan: The grown plan.
        state: For the base's tensor names, `exp_avg_sq` and either `exp_avg` or `z` in the shapes
            of the tensors, and scalars such as `step`. It stays as it is.
        mode: What to keep.
        base_weights: The base's parameters as they were with the state; needed for `z`.
        grown_weights: The grown parameters; needed for `z`.

    Returns:
        The same for the grown names, on the CPU and in the dtypes of the state. A tensor whose
        source has no state, such as a frozen one, has none.

    Raises:
        ModelError: The state does not belong to the base, or to another optimizer.
        UsageError: The mode is unknown, or the weights are missing.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"mode {printable(mode)} is not one of {', '.join(get_args(Mode))}")
    if mode == "reset" or not state:
        return {}
    keys = _checked_keys(plan, state)
    recipes = {
        name: tensor.recipe
        for name, tensor in plan.tensors.items()
        if all(leaf.name in state for leaf in leaves(tensor.recipe))
    }
    sources = _first_sources(plan)

    def kept(name: str, whole: Recipe) -> Recipe:
        if mode == "copy":
            return whole
        return first_copies(whole, sources[name] if mode == "asym" else None)

    grown = {name: _scalars(recipe, state) for name, recipe in recipes.items()}
    for key in keys:
        tensors = {name: entry[key] for name, entry in state.items()}
        added: Tensors = {}
        if key == "exp_avg_sq":
            maps = {name: squared(gradient(recipe)) for name, recipe in recipes.items()}
        elif key == "exp_avg":
            maps = {name: kept(name, gradient(recipe)) for name, recipe in recipes.items()}
        else:
            if base_weights is None or grown_weights is None:
                raise UsageError("z is grown beside the weights: base_weights and grown_weights")
            tensors = {
                name: z.detach() - base_weights[name].detach() for name, z in tensors.items()
            }
            maps = {name: kept(name, linear(recipe)) for name, recipe in recipes.items()}
            added = grown_weights
        for name, tensor in _evaluated(maps, tensors).items():
            if added:
                tensor += added[name].detach().to(tensor)
            grown[name][key] = tensor
    return grown


def _checked_keys(plan: GrowthPlan, state: State) -> list[str]:
    """Return the moments that the state has."""
    shapes = {
        leaf.name: leaf.shape for tensor in plan.tensors.values() for leaf in leaves(tensor.recipe)
    }
    if not state.keys() & shapes.keys():
        raise ModelError(
            f"the state is of {printable(next(iter(state)))} and others, none of which the plan "
            f"reads, but {printable(next(iter(shapes), 'nothing'))} and others",
            hint="name the state as the base's checkpoint names its tensors",
        )
    keys = [key for key in _MOMENTS if key in next(iter(state.values()))]
    if keys not in (["exp_avg", "exp_avg_sq"], ["z", "exp_avg_sq"]):
        raise ModelError("the state is not that of AdamW or Schedule-Free AdamW")
    for name, entry in state.items():
        for key in keys:
            if key not in entry:
                raise ModelError(f"the state of {printable(name)} has no {key}")
            if name in shapes and tuple(entry[key].shape) != shapes[name]:
                raise ModelError(
                    f"{key} of {printable(name)} has shape {list(entry[key].shape)}, but the "
                    f"tensor has {list(shapes[name])}",
                    hint="gather the state of a sharded optimizer first",
                )
        for key, value in entry.items():
            if key not in keys and not _is_scalar(value):
                raise ModelError(f"hfgrow does not know how {printable(key)} of the state grows")
    return keys


def _scalars(recipe: Recipe, state: State) -> dict[str, Any]:
    """Return the scalars of a tensor's source; zeros for a tensor that has none."""
    source = next((leaf.name for leaf in leaves(recipe)), None)
    entry = next(iter(state.values())) if source is None else state[source]
    # A product is a new tensor.
    return {
        key: value * (source is not None) for key, value in entry.items() if key not in _MOMENTS
    }


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or value.numel() == 1


def _first_sources(plan: GrowthPlan) -> dict[str, str | None]:
    """Return for every grown tensor the one of the base that it is the first copy of, if it is."""
    seen: set[int] = set()
    first = []
    for source in plan.layer_map:
        first.append(source.mode == "copy" and source.layer not in seen)
        if first[-1]:
            seen.add(source.layer)
    sources: dict[str, str | None] = {}
    for name in plan.tensors:
        found = layer_of(name)
        if found is None:
            sources[name] = name
        else:
            layer, suffix = found
            origin = layer_prefix(plan.layer_map[layer].layer) + suffix
            sources[name] = origin if first[layer] else None
    return sources


def _evaluated(recipes: Mapping[str, Recipe], tensors: Tensors) -> dict[str, Any]:
    """Compute recipes from tensors whose dtypes are not those of the stored leaves."""
    dtypes = {name: dtype_of(name, tensor) for name, tensor in tensors.items()}
    usual = next(iter(dtypes.values()))
    plans = {}
    for name, recipe in recipes.items():
        read = [dtypes[leaf.name] for leaf in leaves(recipe)]
        plans[name] = TensorPlan(read[0] if read else usual, _stored_as(recipe, dtypes))
    return evaluated(plans, tensors)


def _stored_as(recipe: Recipe, dtypes: Mapping[str, str]) -> Recipe:
    match recipe:
        case Stored():
            return replace(recipe, dtype=dtypes[recipe.name])
        case Blend():
            return Blend(tuple((c, _stored_as(term, dtypes)) for c, term in recipe.terms))
        case Lift():
            return replace(recipe, recipe=_stored_as(recipe.recipe, dtypes))
        case _:
            return recipe
