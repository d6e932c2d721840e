"""Gradients of grown tensors as recipes: the maps of the weights, transposed.

Where a growth preserves the function, the gradient of a grown tensor is a linear map of that of its
source. A matrix `W'[i, j] = f[i] W[s(i), t(j)] b[j]`, its rows carried forward with `f` and its
columns read backward with `b`, has the gradient `G'[i, j] = b[i] G[s(i), t(j)] f[j]`, where the two
are exchanged, each on its own axis. Every entry comes from one entry, so that what is known of the
squares follows the same map with squared coefficients.

Of any growth that preserves the function, the map is right about what the copies add up to: what
the transposed growth makes of `G'` is `G`. How they share it is exact too for growth without noise
whose copies share evenly, and otherwise an approximation:

* Uneven shares of the residual stream, in tensors that write to it: an RMSNorm gives the copies
  the gradient `b[i] A + (d/D) f[i] B`, of which only the sum is known.
* Uneven shares of heads, in queries and keys that pass a norm over all heads, for the same reason.
* Key-value heads whose copies serve different queries: each gets its share of the sum.
* Noise that copies cancel: on the way back it reaches the copies that it is read from.
* Embeddings that the growth unties: both get the sum of their gradients.

Growth that changes the function, such as repeated layers, changes gradients too; they are copied.
A predicted matrix takes the mean of those of the layers it stands between; one that learned maps
made has no history.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from hfgrow.axes import AxisMap, Span
from hfgrow.tensor_recipes import (
    Blend,
    Fill,
    Learned,
    Lift,
    Normal,
    Predicted,
    Recipe,
    Stored,
    leaves,
)


def linear(recipe: Recipe) -> Recipe:
    """Return a recipe without what it adds: noise, constants and fresh entries."""
    return _mapped(recipe, lambda axis_map: axis_map, lambda coefficient: coefficient)


def gradient(recipe: Recipe) -> Recipe:
    """Return the recipe of a tensor's gradient from the gradients of its leaves."""
    return _mapped(recipe, _dual, lambda coefficient: coefficient)


def squared(recipe: Recipe) -> Recipe:
    """Return a linear recipe with every coefficient squared."""
    return _mapped(recipe, _squared, lambda coefficient: coefficient**2)


def first_copies(recipe: Recipe, source: str | None) -> Recipe:
    """Return a linear recipe with zeros where it is no first copy.

    An entry is one if it comes from the tensor `source`, and neither an earlier row nor an earlier
    column, nor an earlier term of a sum, comes from where it does.

    Args:
        recipe: A linear recipe.
        source: The leaf that counts; None for a tensor that is a copy as a whole.
    """
    match recipe:
        case Stored():
            return recipe if recipe.name == source else Fill(recipe.shape, 0.0)
        case Blend():
            for coefficient, term in recipe.terms:
                kept = first_copies(term, source)
                if any(leaves(kept)):
                    return Blend(((coefficient, kept),))
            return Fill(recipe.shape, 0.0)
        case Lift():
            return replace(
                recipe,
                recipe=first_copies(recipe.recipe, source),
                rows=recipe.rows.copies(0, 0),
                cols=recipe.cols and recipe.cols.copies(0, 0),
            )
        case Fill() | Normal() | Predicted() | Learned():
            return recipe


def _mapped(
    recipe: Recipe, axis: Callable[[AxisMap], AxisMap], factor: Callable[[float], float]
) -> Recipe:
    match recipe:
        case Stored():
            return recipe
        case Fill() | Normal() | Learned():
            return Fill(recipe.shape, 0.0)
        case Predicted():
            return _mapped(recipe.mean, axis, factor)
        case Blend():
            return Blend(
                tuple((factor(c), _mapped(term, axis, factor)) for c, term in recipe.terms)
            )
        case Lift():
            cols = None if recipe.cols is None else axis(recipe.cols)
            return Lift(_mapped(recipe.recipe, axis, factor), axis(recipe.rows), cols)


# Cached, so that the tensors of a growth go on sharing their maps.
@lru_cache(maxsize=256)
def _dual(axis_map: AxisMap) -> AxisMap:
    return axis_map.dual


@lru_cache(maxsize=256)
def _squared(axis_map: AxisMap) -> AxisMap:
    return AxisMap(
        axis_map.base,
        tuple(Span(s.start, s.length, s.forward**2, s.backward**2) for s in axis_map.spans),
    )
