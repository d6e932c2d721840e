"""Whether transformers builds the grown model of a derived family as the layer map says.

The config is written by rules for keys; whether they were the right ones is seen here, on the
model that transformers makes of it: each layer is what its source is, and the rest is unchanged.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hfgrow.checkpoint.derived.checked import check_tensors, family_of, form_of
from hfgrow.checkpoint.derived.layers import Traits, all_traits, difference, outer_traits, stores
from hfgrow.checkpoint.derived.skeleton import (
    Form,
    Skeleton,
    loaded_config,
    model_class,
    real_buffers,
    skeleton_of,
)
from hfgrow.errors import ModelError, UsageError, foreign, growth, printable
from hfgrow.plan.families.rewrite import GLOBAL_LISTS, INDICES, rewritten
from hfgrow.plan.plan import GrowthPlan, TensorPlan

# Lists that do not follow the layers one by one; the last is compared on the layers themselves.
_OTHER_LISTS = GLOBAL_LISTS | INDICES.keys() | {"kv_sharing_modes"}


def checked(before: GrowthPlan, after: GrowthPlan) -> GrowthPlan:
    """Return a grown plan of a derived family with the family of its own config.

    Args:
        before: The plan that a step grew; it has a derived family.
        after: What the step made of it.

    Raises:
        UsageError: transformers would build other layers than the map says.
    """
    layer_map = [source.layer for source in after.steps[-1].layer_map]
    try:
        return _checked(before, after, layer_map)
    except UsageError as error:
        details = {**error.details, "layer_map": layer_map}
        raise UsageError(f"{error}", hint=error.hint, details=details) from error


def _checked(before: GrowthPlan, after: GrowthPlan, layer_map: Sequence[int]) -> GrowthPlan:
    base, grown = skeleton_of(before.config), _grown_skeleton(after.config)
    form = _fitting(grown, {name: tensor.shape for name, tensor in after.tensors.items()})
    after = replace(after, tensors=_untied(form, after.tensors))
    _check_built(base, grown, layer_map)
    _check_handed_on(grown, after)
    _check_buffers(before.config, after.config, base, layer_map)
    return replace(after, derived=family_of(grown, form))


def fits(plan: GrowthPlan, layer_map: Sequence[int]) -> bool:
    """Say whether transformers builds what a layer map asks for, tensors aside."""
    family = plan.derived
    assert family is not None
    try:
        settings = rewritten(
            family.settings_of(plan.config), family.settings, layer_map, len(family.kinds)
        )
        config = family.with_settings(plan.config, settings)
        base, grown = skeleton_of(plan.config), _grown_skeleton(config)
        _check_built(base, grown, layer_map)
    except (ModelError, UsageError):
        return False
    return True


def _check_built(base: Skeleton, grown: Skeleton, layer_map: Sequence[int]) -> None:
    _check_layers(base, grown, layer_map)
    _check_lists(base, grown, layer_map)
    _check_outside(base, grown, layer_map)


def _grown_skeleton(config: Mapping[str, Any]) -> Skeleton:
    try:
        return skeleton_of(config)
    except ModelError as error:
        raise UsageError(f"of the grown config: {error}") from error


def _fitting(grown: Skeleton, shapes: Mapping[str, tuple[int, ...]]) -> Form:
    form = form_of(grown, shapes)
    try:
        check_tensors(form, shapes, grown)
    except ModelError as error:
        raise UsageError(f"the grown model would not fit its config: {error}") from error
    return form


def _untied(form: Form, tensors: Mapping[str, TensorPlan]) -> dict[str, TensorPlan]:
    """Return the tensors with one of those that the grown config ties, which are all the same."""
    kept = dict(tensors)
    for names in form.tied:
        first, *others = [name for name in names if name in kept] or [""]
        for other in others:
            if kept[other] != kept[first]:
                raise UsageError(f"the grown config ties {printable(other)} to {printable(first)}")
            del kept[other]
    return kept


def _check_layers(base: Skeleton, grown: Skeleton, layer_map: Sequence[int]) -> None:
    if len(grown.layers) != len(layer_map):
        raise UsageError(
            f"transformers makes {len(grown.layers)} layers of the grown config, not "
            f"{len(layer_map)}"
        )
    before, after = all_traits(base.layers), all_traits(grown.layers)
    for i, source in enumerate(layer_map):
        if name := difference(before[source], after[i], layer_map, len(before)):
            now, was = _shown(after[i], name), _shown(before[source], name)
            raise UsageError(
                f"layer {i} comes from layer {source}, but transformers builds another there: "
                f"{printable(name)} is {now}, and was {was}"
            )


def _check_handed_on(grown: Skeleton, after: GrowthPlan) -> None:
    """Refuse layers that add nothing, and whose keys and values later layers take all the same."""
    traits = all_traits(grown.layers)
    for i, source in enumerate(after.steps[-1].layer_map):
        if source.mode == "copy" or not stores(traits[i]):
            continue
        raise UsageError(
            f"layer {i} would add nothing, but layers behind it take its keys and values "
            f"(num_kv_shared_layers), which are not those of layer {source.layer} of the base",
            hint=f"on top it fits: {growth('random-depth', layers=len(grown.layers))}",
        )


def _shown(traits: Traits, name: str) -> str:
    return printable(traits[name]) if name in traits else "not there"


def _check_lists(base: Skeleton, grown: Skeleton, layer_map: Sequence[int]) -> None:
    """Compare every list of the config that has an entry for each layer, properties among them."""
    num_layers = len(base.layers)
    after = dict(_lists(grown))
    for key, value in _lists(base):
        if len(value) == num_layers and key in after and key not in _OTHER_LISTS:
            wanted = [value[i] for i in layer_map]
            if after[key] not in (wanted, value):
                raise UsageError(
                    f"config.json: {key} of the grown model is {printable(after[key])}, and should "
                    f"be {printable(wanted)}"
                )


def _lists(skeleton: Skeleton) -> Iterator[tuple[str, list[Any]]]:
    for key, value in skeleton.settings.items():
        if isinstance(value, list):
            yield key, value
    for key in dir(type(skeleton.text)):
        if isinstance(getattr(type(skeleton.text), key), property) and not key.startswith("_"):
            try:
                value = getattr(skeleton.text, key)
            except Exception:  # one that this config cannot have
                continue
            if isinstance(value, list | tuple):
                yield key, list(value)


def _check_outside(base: Skeleton, grown: Skeleton, layer_map: Sequence[int]) -> None:
    before, after = (
        {
            name: value
            for name, value in outer_traits(one.model, one.stack).items()
            if "per_layer" not in name
        }
        for one in (base, grown)
    )
    if name := difference(before, after, layer_map, len(base.layers)):
        raise UsageError(
            f"transformers builds another model outside the layers: {printable(name)} is "
            f"{_shown(after, name)}, and was {_shown(before, name)}"
        )


def _check_buffers(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    base: Skeleton,
    layer_map: Sequence[int],
) -> None:
    """Compare the numbers of buffers inside layers that no file holds."""
    if not any(_hidden(layer) for layer in base.layers):
        return
    with foreign(lambda said: UsageError(f"the buffers of a layer cannot be computed: {said}")):
        old, new = (_with_buffers(config, base.stack) for config in (before, after))
        for i, source in enumerate(layer_map):
            one, other = _hidden(old[source]), _hidden(new[i])
            for name, value in one.items():
                if name not in other or not _same(value, other[name]):
                    raise UsageError(
                        f"layer {i} comes from layer {source}, but its {printable(name)}, which "
                        "no file holds, has other numbers there"
                    )


def _hidden(layer: Any) -> dict[str, Any]:
    """Return the buffers of a layer that are not stored."""
    found = {}
    for path, module in layer.named_modules():
        for name in module._non_persistent_buffers_set:
            if module._buffers.get(name) is not None:
                found[f"{path}.{name}"] = module._buffers[name]
    return found


def _same(one: Any, other: Any) -> bool:
    import torch

    is_equal: bool = one.shape == other.shape and torch.equal(
        torch.nan_to_num(one), torch.nan_to_num(other)
    )
    return is_equal


def _with_buffers(config: Mapping[str, Any], stack: str) -> Any:
    """Return the layers of a model whose buffers have numbers."""
    content = {key: value for key, value in config.items() if key != "hfgrow"}
    loaded = loaded_config(content)
    with real_buffers():
        model = model_class(loaded, content)._from_config(loaded)
    return model.get_submodule(stack)
