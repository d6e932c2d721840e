"""What of a grown model is the base's, entry by entry, and the way back.

An entry is kept if it is a first copy: no earlier layer, row or column comes from where its own do.
Everything else is what the growth added. Where only that was trained, the base is still there, and
what every kept entry was multiplied by can be divided away again, exactly if it is a power of two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import frexp

from hfgrow.errors import ModelError, printable
from hfgrow.plan.axes import FRESH, AxisMap
from hfgrow.plan.families.table import layer_of
from hfgrow.plan.plan import GrowthPlan, LayerSource, TensorPlan
from hfgrow.plan.tensors import Blend, Lift, Recipe, Stored


@dataclass(frozen=True, slots=True)
class Kept:
    """Which entries of a grown tensor are the base's: those in a kept row and a kept column.

    Attributes:
        rows: For every index of the first axis, whether it is kept.
        cols: The same of the second axis; None for a vector.
    """

    rows: tuple[bool, ...]
    cols: tuple[bool, ...] | None = None

    @property
    def is_all(self) -> bool:
        """Whether every entry is kept."""
        return all(self.rows) and (self.cols is None or all(self.cols))

    @property
    def is_some(self) -> bool:
        """Whether any entry is kept."""
        return any(self.rows) and (self.cols is None or any(self.cols))


def first_sources(plan: GrowthPlan) -> dict[str, str | None]:
    """Return for every grown tensor the one of the base that it is the first copy of, if it is."""
    layers = first_copies_of_layers(plan.layer_map)
    part = layer_of if plan.derived is None else plan.derived.layer_of
    sources: dict[str, str | None] = {}
    for name in plan.tensors:
        found = part(name)
        if found is None:
            sources[name] = name
        else:
            layer, suffix = found
            origin = plan.layer_map[layer].layer
            before = name.removesuffix(f"{layer}.{suffix}")
            is_first = layers.get(origin) == layer
            sources[name] = f"{before}{origin}.{suffix}" if is_first else None
    return sources


def first_copies_of_layers(layer_map: Sequence[LayerSource]) -> dict[int, int]:
    """Return for every layer of the base that was copied the first of its copies, both 0-based."""
    first: dict[int, int] = {}
    for i, source in enumerate(layer_map):
        if source.mode == "copy":
            first.setdefault(source.layer, i)
    return first


def kept_entries(plan: GrowthPlan) -> dict[str, Kept]:
    """Return which entries of every grown tensor are the base's.

    Args:
        plan: A grown plan whose leaves have the names of the base's tensors.
    """
    sources = first_sources(plan)
    return {name: _kept(tensor.recipe, sources[name]) for name, tensor in plan.tensors.items()}


def _kept(recipe: Recipe, source: str | None) -> Kept:
    match recipe:
        case Stored():
            return _everywhere(recipe.shape, recipe.name == source)
        case Lift():
            inner = _kept(recipe.recipe, source)
            rows = _first_of(recipe.rows, inner.rows)
            if inner.cols is None or recipe.cols is None:
                return Kept(rows)
            return Kept(rows, _first_of(recipe.cols, inner.cols))
        case Blend():
            terms = (_kept(term, source) for _, term in recipe.terms)
            return next((kept for kept in terms if kept.is_some), _everywhere(recipe.shape, False))
        case _:
            return _everywhere(recipe.shape, False)


def _everywhere(shape: tuple[int, ...], is_kept: bool) -> Kept:
    rows, *cols = ((is_kept,) * size for size in shape)
    return Kept(rows, cols[0] if cols else None)


def _first_of(axis_map: AxisMap, kept: tuple[bool, ...]) -> tuple[bool, ...]:
    sources = axis_map.copies(0, 0).sources
    return tuple(source != FRESH and kept[source] for source in sources)


def undone(base: GrowthPlan, grown: GrowthPlan, found: GrowthPlan) -> GrowthPlan:
    """Return the plan that makes the base out of the grown model.

    Args:
        base: The plan of the base, of which only names and shapes count.
        found: The grown model as it lies there now, the files and dtypes of the result.

    Raises:
        ModelError: A tensor cannot be had back bit for bit.
    """
    there = {source: name for name, source in first_sources(grown).items() if source}
    tensors = {}
    for name in base.tensors:
        shown = f"{printable(name)} of the base cannot be had back"
        if there.get(name) not in grown.tensors:
            raise ModelError(f"{shown}: no layer of the grown model is its layer as it was")
        now = found.tensors[there[name]]
        recipe = _inverse(grown.tensors[there[name]].recipe, now.recipe, shown)
        tensors[name] = TensorPlan(now.dtype, recipe)
    return replace(base, tensors=tensors, folder=found.folder, files=found.files)


def _inverse(recipe: Recipe, out: Recipe, shown: str) -> Recipe:
    """Return what `recipe` was made from, out of what it makes."""
    match recipe:
        case Stored():
            return out
        case Lift() if recipe.noise is None or recipe.cols is None or not recipe.cols.has_copies:
            rows = _back(recipe.rows, [span.forward for span in recipe.rows.spans], shown)
            cols = recipe.cols and _back(
                recipe.cols, [span.backward for span in recipe.cols.spans], shown
            )
            is_same = rows.is_identity and (cols is None or cols.is_identity)
            return _inverse(recipe.recipe, out if is_same else Lift(out, rows, cols), shown)
        case Lift():
            raise ModelError(f"{shown}: its copies were told apart by noise, which rounds")
        case Blend(terms=((factor, term),)):
            _check_power_of_two(factor, shown)
            return _inverse(term, Blend(((1 / factor, out),)), shown)
        case Blend(terms=((1.0, Lift() as term), (_, Lift() as added))) if _spares(added, term):
            return _inverse(term, out, shown)
        case _:
            raise ModelError(f"{shown}: it was mixed with other weights")


def _spares(added: Lift, lifted: Lift) -> bool:
    """Say whether what is added is nothing in every row that is a first copy."""
    of_added, kept = added.rows.sources, lifted.rows.copies(0, 0).sources
    is_zero = not added.fresh.is_random and added.fresh.value == 0
    return is_zero and all(a == FRESH or k == FRESH for a, k in zip(of_added, kept, strict=True))


def _back(axis_map: AxisMap, factors: Sequence[float], shown: str) -> AxisMap:
    for factor, span in zip(factors, axis_map.spans, strict=True):
        if span.start != FRESH:
            _check_power_of_two(factor, shown)
    return axis_map.inverse


def _check_power_of_two(factor: float, shown: str) -> None:
    mantissa, _ = frexp(factor)
    if abs(mantissa) != 0.5:
        raise ModelError(
            f"{shown}: it was multiplied by {factor:.6g}, which rounds; only a power of two can be "
            "divided away"
        )
