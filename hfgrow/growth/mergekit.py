"""Recipes of mergekit that grow one model: passthrough slices, read as what they are here.

A slice is a range of layers, counted from 0, the end not among them. Slices alone are `partial`.
Where slices of one layer are scaled to add nothing, as LLaMA Pro (Wu et al. 2024,
https://arxiv.org/abs/2401.02415, Sec. 3) does, they are `zero-depth`; any other scale of tensors is
a `tensor-scale` behind.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, groupby
from math import isfinite
from typing import Any, NamedTuple

from hfgrow.errors import UsageError, printable
from hfgrow.plan.depth import check_num_layers
from hfgrow.plan.tensors import CONFIG_DTYPES

Steps = list[tuple[str, dict[str, object]]]
_READ = {"slices", "merge_method", "parameters", "out_dtype", "dtype"}
_OF_MERGEKIT = {"slices", "merge_method", "experts"}
_OF_SLICE, _OF_SOURCE = {"sources", "parameters"}, {"model", "layer_range", "parameters"}
# Parts of names and what a tensor is multiplied by that has the first of them in its name.
Factors = tuple[tuple[str, float], ...]
# A layer of which mergekit says that it adds nothing.
_NOTHING = {("o_proj", 0.0), ("down_proj", 0.0)}
_EVERY = "*"
# A scale of the first slice takes what stands before the layers, of the last what stands behind.
_BEFORE, _BEHIND = ("model.embed_tokens.weight",), ("model.norm.weight", "lm_head.weight")
# Without a number, and no part of how the name of every layer begins.
_FILTER = re.compile(r"[A-Za-z_.-]{1,80}", re.ASCII)
_LAYERS = "model.layers."


class Passthrough(NamedTuple):
    """What a recipe asks for.

    Attributes:
        steps: The operators, in order, with their arguments.
        dtype: What every tensor is to be converted to; None if it does not say.
        num_base_layers: The depth of the base that it is written for; None if any will do.
        unread: The keys that are not read.
    """

    steps: Steps
    dtype: str | None
    num_base_layers: int | None
    unread: tuple[str, ...]


def of_slices(where: str, content: Mapping[str, Any]) -> Passthrough:
    """Return the growth that slices of one model are.

    Args:
        where: How messages name the recipe.
        content: What it holds.

    Raises:
        UsageError: It is a merge of several models, or has parameters other than plain scales.
    """
    method = content.get("merge_method")
    if method != "passthrough" or "slices" not in content:
        told = f"merge_method {printable(method)}" if method else "no merge_method"
        others = [key for key in ("models", "modules", "experts") if key in content]
        without = "" if "slices" in content else ", of " + " and ".join(others or ["no slices"])
        raise UsageError(
            f"{where} are a recipe of mergekit with {told}{without}",
            hint="hfgrow reads passthrough: slices of one model, stacked",
        )
    slices = content["slices"]
    if not isinstance(slices, list) or not slices:
        raise UsageError(
            f"{where} have slices {printable(repr(slices), 80)}; expected a list of them",
            hint="such as: slices: [{sources: [{model: org/base, layer_range: [0, 12]}]}]",
        )
    parts, models = [], []
    # Every layer of the result: that of the base, and what its tensors are multiplied by.
    layers: list[tuple[int, Factors]] = []
    for number, entry in enumerate(slices, 1):
        sources = entry.get("sources") if isinstance(entry, dict) else None
        source = sources[0] if isinstance(sources, list) and len(sources) == 1 else None
        bounds = source.get("layer_range") if isinstance(source, dict) else None
        if not (
            isinstance(source, dict)
            and isinstance(bounds, list)
            and [type(bound) for bound in bounds] == [int, int]
            and 0 <= bounds[0] < bounds[1]
        ):
            raise UsageError(
                f"{where}: slice {number} is not one source with a layer_range [from, to]",
                hint="slices of several models at once are merged, not grown",
            )
        told = f"{where}: slice {number}"
        if unknown := [*(entry.keys() - _OF_SLICE), *(source.keys() - _OF_SOURCE)]:
            raise UsageError(
                f"{told} has the key {printable(unknown[0])}, which hfgrow does not read"
            )
        factors = _factors(told, *(one.get("parameters") for one in (source, entry, content)))
        check_num_layers(len(layers) + bounds[1] - bounds[0])
        layers += [(layer, factors) for layer in range(*bounds)]
        parts.append(f"[{bounds[0] + 1}:{bounds[1]}]")
        models.append(source.get("model"))
    names = list(dict.fromkeys(map(_name_of, models)))
    if names[1:]:
        raise UsageError(
            f"{where} take layers of {len(names)} models, {names[0]} and {names[1]}",
            hint="hfgrow grows one model from its own layers",
        )
    if "+" in names[0]:
        raise UsageError(
            f"{where} put an adapter on the model, {names[0]}",
            hint="merge the adapter into its base first, and grow what that makes",
        )
    dtype = content.get("out_dtype") or content.get("dtype")
    if dtype is not None and not (isinstance(dtype, str) and dtype in CONFIG_DTYPES):
        raise UsageError(
            f"{where} have dtype {printable(dtype)}", hint=f"one of {', '.join(CONFIG_DTYPES)}"
        )
    unread = tuple(str(key) for key in content if key not in _READ)
    if steps := _expansion(layers):
        return Passthrough(steps, dtype, 1 + max(layers)[0], unread)
    scales = list(_scales([factors for _, factors in layers]))
    if scales and [layer for layer, _ in layers] == list(range(len(layers))):
        return Passthrough(scales, dtype, len(layers), unread)
    steps = [("partial", {"pattern": "-".join(parts)}), *scales]
    return Passthrough(steps, dtype, None, unread)


def is_recipe(content: Any) -> bool:
    """Say whether a file was written for mergekit, whether it is a growth or not."""
    return isinstance(content, dict) and not content.keys().isdisjoint(_OF_MERGEKIT)


def _name_of(model: Any) -> str:
    """Return a model as mergekit spells it: NAME, NAME@REVISION, NAME+ADAPTER."""
    if not isinstance(model, dict):
        return printable(model)
    if "path" in model:
        return "@".join(printable(model[key]) for key in ("path", "revision") if model.get(key))
    return "+".join(_name_of(model[key]) for key in ("model", "lora") if model.get(key))


def _factors(where: str, *scopes: Any) -> Factors:
    """Return what the scales of scopes come to, the first of which that fits a tensor counts."""
    found: dict[str, float] = {}
    for parameters in filter(None, scopes):
        is_scale = isinstance(parameters, dict) and parameters.keys() == {"scale"}
        scale = parameters["scale"] if is_scale else [None]
        entries = scale if isinstance(scale, list) else [scale]
        if entries is not scale and not isinstance(scale, dict):
            entries = [{"value": scale}]
        for entry in entries:
            part, factor = _factor(entry)
            if factor is None:
                raise UsageError(
                    f"{where} has parameters that hfgrow does not read",
                    hint="it reads scale, a number or a list such as "
                    "[{filter: o_proj, value: 0.5}, {value: 1}]",
                )
            if not any(before == _EVERY or before in part for before in found):
                found[part] = factor
    if found.get(_EVERY) == 1:
        del found[_EVERY]
    return tuple(found.items()) if any(factor != 1 for factor in found.values()) else ()


def _factor(entry: Any) -> tuple[str, float | None]:
    """Return the filter and the value of a scale; the value is None if hfgrow does not read it."""
    if not isinstance(entry, dict) or entry.keys() - {"filter", "value"}:
        return _EVERY, None
    part, value = entry.get("filter") or _EVERY, entry.get("value")
    is_text = isinstance(part, str) and (_FILTER.fullmatch(part) or part == _EVERY)
    if not is_text or part in _LAYERS or type(value) not in (int, float, str):
        return _EVERY, None
    try:
        factor = float(value or 0)
    except (ValueError, OverflowError):
        return part, None
    return part, factor if isfinite(factor) else None


def _scales(layers: Sequence[Factors]) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield a step for all layers that are multiplied by the same."""
    for factors in dict.fromkeys(filter(None, layers)):
        found = [i for i, one in enumerate(layers, 1) if one == factors]
        if factors == layers[0] and _fits(factors, _BEFORE):
            found.insert(0, 0)
        if factors == layers[-1] and _fits(factors, _BEHIND):
            found.append(len(layers) + 1)
        text = ",".join(f"{part}:{factor!r}".removesuffix(".0") for part, factor in factors)
        step: dict[str, object] = {"factors": text}
        if len(found) < len(layers) + 2:
            step["layers"] = _runs(found)
        yield "tensor-scale", step


def _fits(factors: Factors, names: Iterable[str]) -> bool:
    return any(part == _EVERY or part in name for part, _ in factors for name in names)


def _runs(numbers: Sequence[int]) -> str:
    step = count()
    runs = ([*run] for _, run in groupby(numbers, key=lambda number: number - next(step)))
    return "-".join(f"[{run[0]}:{run[-1]}]" if run[1:] else f"[{run[0]}]" for run in runs)


def _expansion(layers: Sequence[tuple[int, Factors]]) -> Steps:
    """Return the steps that put layers that add nothing where a recipe has them, if they do."""
    order = [layer for layer, _ in layers]
    depth = max(order) + 1
    zeros = [layer for layer, factors in layers if {*factors} == _NOTHING]
    kept = [layer for layer, factors in layers if not factors]
    # Each behind the layer that it is a copy of.
    is_sorted = kept == list(range(depth)) and order == sorted(order) and not layers[0][1]
    if zeros and is_sorted and len(zeros) + len(kept) == len(layers):
        every = depth // len(zeros) if len(zeros) <= depth else depth
        if zeros == list(range(every - 1, depth, every)) and depth % every == 0:
            return [("zero-depth", {"every": every})]
        if order == [i * depth // len(order) for i in range(len(order))]:
            return [("zero-depth", {"layers": len(order)})]
        if set(zeros) == {depth - 1}:
            # One at a time on top: each is a copy of the one below it.
            return [("zero-depth", {"every": depth + i}) for i in range(len(zeros))]
    return []
