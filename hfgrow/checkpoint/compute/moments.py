"""Optimizer state grown with the weights, so that training goes on where the base's stood.

    state = {name: optimizer.state[p] for name, p in base.named_parameters()}
    state = hfgrow.grow_optimizer_state(plan, state, "copy-v")
    for name, p in grown.named_parameters():
        grown_optimizer.state[p] = state[name]

Means of gradients (`exp_avg`, and the `momentum_buffer` of Muon) take the map of gradients, means
of squares (`exp_avg_sq`) the one with squared coefficients; `hfgrow.gradient` says where the maps
are exact. Muon makes its momentum orthogonal before it is a step, which is its own affair.

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
https://arxiv.org/abs/2602.02472 (state kept for the first copy, AdamW and Muon); Defazio et al.
2024, "The Road Less Scheduled", https://arxiv.org/abs/2405.15682 (x, y and z)
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from hfgrow.checkpoint.compute.state_dict import dtype_of, evaluated
from hfgrow.errors import ModelError, UsageError, printable
from hfgrow.plan.families.table import layer_of
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
from hfgrow.plan.undo import first_sources

Mode = Literal["reset", "copy", "copy-v", "asym"]
Tensors = Mapping[str, Any]
# Tensor name -> what an optimizer keeps for it, in the optimizer's words.
State = Mapping[str, Tensors]

# What tells an optimizer -> what it keeps of a tensor in its shape: AdamW, Schedule-Free, Muon.
_KINDS = {
    "exp_avg": ("exp_avg", "exp_avg_sq"),
    "z": ("z", "exp_avg_sq"),
    "momentum_buffer": ("momentum_buffer",),
}
_MOMENTS = ("exp_avg", "momentum_buffer", "z", "exp_avg_sq")


def grow_optimizer_state(
    plan: GrowthPlan,
    state: State,
    mode: Mode,
    *,
    base_weights: Tensors | None = None,
    grown_weights: Tensors | None = None,
) -> dict[str, dict[str, Any]]:
    """Grow the state of AdamW, Schedule-Free AdamW or Muon by the plan that grew the weights.

    Tensors of one state may belong to different optimizers, as with Muon for the matrices of the
    layers and AdamW for everything else.

    Modes:
        reset: No state; the optimizer begins anew.
        copy: All of it. Copies without noise stay equal for ever, their moments being equal.
        copy-v: `exp_avg_sq`; `exp_avg` and `momentum_buffer` are zero, and `z` the parameters
            themselves.
        asym: `exp_avg_sq`, and `exp_avg`, `momentum_buffer` or `z` of first copies; other entries
            as in copy-v. An entry is a first copy if its row, its column and its layer are.

    Args:
        plan: The grown plan.
        state: For the base's tensor names, `exp_avg_sq` and either `exp_avg` or `z`, or
            `momentum_buffer`, in the shapes of the tensors, and scalars such as `step`. It stays
            as it is.
        mode: What to keep.
        base_weights: The base's parameters as they were with the state; needed for `z`.
        grown_weights: The grown parameters; needed for `z`.

    Returns:
        The same for the grown names, on the CPU and in the dtypes of the state. A tensor whose
        source has no state, such as a frozen one, has none, nor has one without its like in the
        base.

    Raises:
        ModelError: The state does not belong to the base, or is that of another optimizer.
        UsageError: The mode is unknown, or the weights are missing.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"mode {printable(mode)} is not one of {', '.join(get_args(Mode))}")
    if mode == "reset" or not state:
        return {}
    kinds = _checked_kinds(plan, state)
    recipes = {
        name: tensor.recipe
        for name, tensor in plan.tensors.items()
        if all(leaf.name in state for leaf in leaves(tensor.recipe))
    }
    sources = first_sources(plan)

    def kept(name: str, whole: Recipe) -> Recipe:
        if mode == "copy":
            return whole
        return first_copies(whole, sources[name] if mode == "asym" else None)

    grown, has = {}, {}
    for name, relative, scalars in _relatives(recipes, state):
        grown[name], has[name] = scalars, kinds[relative]
    for key in _MOMENTS:
        tensors = {name: entry[key] for name, entry in state.items() if key in kinds[name]}
        of = {name: recipes[name] for name, keys in has.items() if key in keys}
        if not of:
            continue
        added: Tensors = {}
        if key == "exp_avg_sq":
            maps = {name: squared(gradient(recipe)) for name, recipe in of.items()}
        elif key in ("exp_avg", "momentum_buffer"):
            maps = {name: kept(name, gradient(recipe)) for name, recipe in of.items()}
        else:
            if base_weights is None or grown_weights is None:
                raise UsageError("z is grown beside the weights: base_weights and grown_weights")
            tensors = {
                name: z.detach() - base_weights[name].detach() for name, z in tensors.items()
            }
            maps = {name: kept(name, linear(recipe)) for name, recipe in of.items()}
            added = grown_weights
        for name, tensor in _evaluated(maps, tensors).items():
            if added:
                tensor += added[name].detach().to(tensor)
            grown[name][key] = tensor
    return grown


def _checked_kinds(plan: GrowthPlan, state: State) -> dict[str, tuple[str, ...]]:
    """Return the moments that each tensor's state has."""
    shapes = {
        leaf.name: leaf.shape for tensor in plan.tensors.values() for leaf in leaves(tensor.recipe)
    }
    if not state.keys() & shapes.keys():
        raise ModelError(
            f"the state is of {printable(next(iter(state)))} and others, none of which the plan "
            f"reads, but {printable(next(iter(shapes), 'nothing'))} and others",
            hint="name the state as the base's checkpoint names its tensors",
        )
    kinds = {}
    for name, entry in state.items():
        keys = next((kind for first, kind in _KINDS.items() if first in entry), None)
        if keys is None:
            raise ModelError(
                f"the state of {printable(name)} has {printable(', '.join(entry) or 'nothing')}: "
                "it is not that of AdamW, Schedule-Free AdamW or Muon"
            )
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
        kinds[name] = keys
    return kinds


def _relatives(
    recipes: Mapping[str, Recipe], state: State
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the grown tensors that have a state, with the base's whose kind of state they have.

    That is their source; of those that are new as a whole it is their like in some layer, and their
    scalars are 0.
    """
    alike = {_without_layer(name): name for name in state}
    for name, recipe in recipes.items():
        source = next((leaf.name for leaf in leaves(recipe)), None)
        relative = source or alike.get(_without_layer(name))
        if relative is not None:
            entry = state[relative].items()
            # A product is a new tensor.
            scalars = {key: value * bool(source) for key, value in entry if key not in _MOMENTS}
            yield name, relative, scalars


def _without_layer(name: str) -> str:
    found = layer_of(name)
    return found[1] if found else name


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or value.numel() == 1


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
