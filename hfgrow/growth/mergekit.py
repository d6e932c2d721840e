"""Recipes of mergekit that grow one model: passthrough slices, read as what they are here.

A slice is a range of layers, counted from 0, the end not among them. Slices alone are `partial`.
Where slices of one layer are scaled to add nothing, as LLaMA Pro (Wu et al. 2024,
https://arxiv.org/abs/2401.02415, Sec. 3) does, they are `zero-depth`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hfgrow.errors import UsageError, printable
from hfgrow.plan.depth import check_num_layers
from hfgrow.plan.tensors import CONFIG_DTYPES

Steps = list[tuple[str, dict[str, object]]]
_READ = {"slices", "merge_method", "parameters", "out_dtype", "dtype"}
_OF_SLICE, _OF_SOURCE = {"sources", "parameters"}, {"model", "layer_range", "parameters"}
# What mergekit calls the last matrix of each branch, by a part of its name.
_BRANCH_ENDS = ("o_proj", "down_proj")


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
        UsageError: It is a merge of several models, or scales what it copies.
    """
    method = content.get("merge_method")
    if method != "passthrough":
        raise UsageError(
            f"{where} are a recipe of mergekit with merge_method {printable(method)}",
            hint="hfgrow reads passthrough: slices of one model, stacked",
        )
    if content.get("parameters"):
        raise UsageError(f"{where} have parameters for all slices, which hfgrow does not read")
    slices = content["slices"]
    if not isinstance(slices, list) or not slices:
        raise UsageError(
            f"{where} have slices {printable(repr(slices), 80)}; expected a list of them",
            hint="such as: slices: [{sources: [{model: org/base, layer_range: [0, 12]}]}]",
        )
    parts, models = [], []
    # Every layer of the result: that of the base, and whether it adds nothing.
    layers: list[tuple[int, bool]] = []
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
        is_zero = _adds_nothing(told, source.get("parameters") or entry.get("parameters"))
        check_num_layers(len(layers) + bounds[1] - bounds[0])
        layers += [(layer, is_zero) for layer in range(*bounds)]
        parts.append(f"[{bounds[0] + 1}:{bounds[1]}]")
        models.append(source.get("model"))
    if any(model != models[0] for model in models):
        raise UsageError(
            f"{where} take layers of {len(set(map(str, models)))} models",
            hint="hfgrow grows one model from its own layers",
        )
    dtype = content.get("out_dtype") or content.get("dtype")
    if dtype is not None and not (isinstance(dtype, str) and dtype in CONFIG_DTYPES):
        raise UsageError(
            f"{where} have dtype {printable(dtype)}", hint=f"one of {', '.join(CONFIG_DTYPES)}"
        )
    unread = tuple(str(key) for key in content if key not in _READ)
    if any(is_zero for _, is_zero in layers):
        return Passthrough(_expansion(where, layers), dtype, 1 + max(layers)[0], unread)
    return Passthrough([("partial", {"pattern": "-".join(parts)})], dtype, None, unread)


def _adds_nothing(where: str, parameters: Any) -> bool:
    """Say whether parameters of a slice scale what its layers add by 0, and nothing else."""
    if not parameters:
        return False
    scale = parameters.get("scale") if isinstance(parameters, dict) else None
    entries = scale if isinstance(scale, list) and len(parameters) == 1 else []
    if all(isinstance(entry, dict) and entry.keys() <= {"filter", "value"} for entry in entries):
        found = [(entry.get("filter"), entry.get("value")) for entry in entries]
        ends, rest = found[: len(_BRANCH_ENDS)], found[len(_BRANCH_ENDS) :]
        if all((end, 0) in ends for end in _BRANCH_ENDS) and rest in ([], [(None, 1)]):
            return True
    raise UsageError(
        f"{where} has parameters that hfgrow does not read",
        hint="it reads a scale of 0 for o_proj and for down_proj, and of 1 for the rest",
    )


def _expansion(where: str, layers: Sequence[tuple[int, bool]]) -> Steps:
    """Return the steps that put layers that add nothing where a recipe has them."""
    order = [layer for layer, _ in layers]
    depth = max(order) + 1
    zeros = [layer for layer, is_zero in layers if is_zero]
    kept = [layer for layer, is_zero in layers if not is_zero]
    # Each behind the layer that it is a copy of.
    if kept == list(range(depth)) and order == sorted(order) and not layers[0][1]:
        every = depth // len(zeros) if len(zeros) <= depth else depth
        if zeros == list(range(every - 1, depth, every)) and depth % every == 0:
            return [("zero-depth", {"every": every})]
        if order == [i * depth // len(order) for i in range(len(order))]:
            return [("zero-depth", {"layers": len(order)})]
        if set(zeros) == {depth - 1}:
            # One at a time on top: each is a copy of the one below it.
            return [("zero-depth", {"every": depth + i}) for i in range(len(zeros))]
    raise UsageError(
        f"{where} put layers that add nothing elsewhere than zero-depth does",
        hint="hfgrow operators zero-depth says where it puts them",
    )
