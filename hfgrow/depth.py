"""The depth engine: a layer map applied to a plan of any family.

Every tensor of layer `j` of the output is the same-named tensor of layer `layer_map[j]` of the
base; what lies outside the layers stays. Lists in the config with one entry for each layer are
re-indexed by the same map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hfgrow.errors import UsageError
from hfgrow.families import FAMILIES
from hfgrow.families.table import Family, layer_prefix
from hfgrow.plan import GrowthPlan, GrowthStep, LayerSource

# More layers than any checkpoint needs; a bound on what a typing error can ask for, and on the
# index that lists their tensors.
MAX_LAYERS = 10_000


def apply_layer_map(
    base: GrowthPlan,
    layer_map: Sequence[int],
    *,
    operator: str,
    arguments: Mapping[str, object],
    preserves_function: bool = False,
) -> GrowthPlan:
    """Return the plan whose layer `j` is a copy of layer `layer_map[j]` of `base`.

    Args:
        base: The plan to grow.
        layer_map: For every layer of the output, the 0-based layer of the base.
        operator: The operator's name, for the record.
        arguments: The operator's arguments, for the record.
        preserves_function: What the operator promises.

    Raises:
        UsageError: The map asks for more layers than `MAX_LAYERS`.
    """
    check_num_layers(len(layer_map))
    by_layer: list[list[tuple[str, str]]] = [[] for _ in range(base.num_hidden_layers)]
    tensors = {}
    prefixes = {layer_prefix(i): i for i in range(base.num_hidden_layers)}
    for name, tensor in base.tensors.items():
        layer = prefixes.get(".".join(name.split(".", 3)[:3]) + ".")
        if layer is None:
            tensors[name] = tensor
        else:
            by_layer[layer].append((name.removeprefix(layer_prefix(layer)), name))
    for i, source in enumerate(layer_map):
        for suffix, name in by_layer[source]:
            tensors[layer_prefix(i) + suffix] = base.tensors[name]
    step = GrowthStep(
        operator, dict(arguments), tuple(LayerSource(i) for i in layer_map), preserves_function
    )
    return replace(
        base,
        config=grown_config(base.config, FAMILIES[base.family], layer_map),
        layer_map=tuple(base.layer_map[i] for i in layer_map),
        tensors=tensors,
        steps=(*base.steps, step),
    )


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
    wanted = {key: [old[i] for i in layer_map] for key, old in family.per_layer(config).items()}
    for key, value in wanted.items():
        if config.get(key) is not None:
            grown[key] = value
    by_rule = family.per_layer(grown)
    for key, value in wanted.items():
        if by_rule.get(key) != value:
            grown[key] = value
    return grown


def target_layers(base: GrowthPlan, g: int | None, layers: int | None) -> int:
    """Return the number of layers asked for by a growth factor or a target depth.

    Raises:
        UsageError: Both or neither were given, or the target is not deeper than the base.
    """
    num_layers = base.num_hidden_layers
    if (g is None) == (layers is None):
        given = "both were given" if g is not None else "neither was given"
        raise UsageError(
            f"the target depth is either a growth factor --g or --layers; {given}", hint="try --g 4"
        )
    if g is not None:
        if g < 2:
            raise UsageError(f"growth factor g must be at least 2, not {g}")
        layers = g * num_layers
    assert layers is not None
    if layers <= num_layers:
        raise UsageError(
            f"--layers {layers} is not deeper than the base, which has {num_layers} layers",
            hint=f"try --layers {2 * num_layers}",
        )
    check_num_layers(layers)
    return layers


def check_num_layers(num_layers: int) -> None:
    """Refuse a depth that nobody can mean.

    Raises:
        UsageError: More than `MAX_LAYERS` layers.
    """
    if num_layers > MAX_LAYERS:
        raise UsageError(
            f"the target has {num_layers} layers, more than the {MAX_LAYERS} that hfgrow plans"
        )
