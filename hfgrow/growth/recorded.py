"""A growth as its record tells it, where the base is not at hand: shapes without weights."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hfgrow.checkpoint.derived.grown import checked
from hfgrow.checkpoint.files import MANIFEST, SINGLE
from hfgrow.errors import ModelError, UsageError
from hfgrow.growth.reproduce import replay
from hfgrow.growth.steps import planned
from hfgrow.lineage.manifest import Link, widths_of
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.families.experts import with_experts
from hfgrow.plan.operators import adds_experts, unties
from hfgrow.plan.operators.upcycling import dense_config
from hfgrow.plan.plan import GrowthPlan, GrowthStep, LayerSource, TensorPlan
from hfgrow.plan.tensors import Stored
from hfgrow.plan.undo import Kept, first_copies_of_layers, kept_entries


def recorded_base(config: Mapping[str, Any], link: Link, dtype: str) -> GrowthPlan:
    """Return the plan of a growth's base, its tensors by name and shape alone.

    Args:
        config: The config of the grown model, of a family with a table.
        dtype: The dtype of its tensors, in safetensors' words.

    Raises:
        ModelError: The record is of another depth.
    """
    if becomes_mixture(link):
        config = dense_config(config)
    family, sources = FAMILIES[config["model_type"]], link.layer_sources
    num_layers, first = link.base.num_hidden_layers, first_copies_of_layers(sources)
    if not num_layers <= len(sources) == config["num_hidden_layers"]:
        raise ModelError(
            f"the model has {config['num_hidden_layers']} layers, and {MANIFEST} records a growth "
            f"from {num_layers} to {len(sources)}"
        )
    before, after = link.base.widths, link.result.widths
    # What did not grow stays as config.json says it, which may leave it to the class.
    grown = {key: size for key, size in before.items() if size and size != after.get(key)}
    settings = {**config, **grown}
    if link.base.num_experts and link.base.num_experts_per_tok:
        settings |= with_experts(config, link.base.num_experts, link.base.num_experts_per_tok)
    for key in family.per_layer_lists:
        if settings.get(key) is not None:
            settings[key] = [settings[key][first.get(i, i)] for i in range(num_layers)]
    if link.changes_layers:
        settings |= {key: num_layers for key in family.layer_counts if key in settings}
    if any(unties(step.operator) for step in link.steps):
        settings["tie_word_embeddings"] = True
    shapes = family.shapes(settings, tied=family.is_tied(settings))
    return GrowthPlan(
        folder="",
        config=settings,
        family=family.model_type,
        layer_map=tuple(LayerSource(i) for i in range(num_layers)),
        tensors={
            name: TensorPlan(dtype, Stored(SINGLE, name, 0, shape, dtype))
            for name, shape in shapes.items()
        },
        files={},
    )


def recorded_base_of_derived(found: GrowthPlan, link: Link) -> GrowthPlan:
    """Return the plan of a growth's base of a derived family, which is some of the grown layers.

    Args:
        found: The grown model.

    Raises:
        ModelError: The record is of another depth, or transformers builds no model of the layers
            that were there before.
    """
    sources, num_layers = link.layer_sources, link.base.num_hidden_layers
    # Of a layer whose keys later ones take, the last copy is the one that stores them.
    last = {source.layer: i for i, source in enumerate(sources) if source.mode == "copy"}
    if len(sources) != found.num_hidden_layers:
        raise ModelError(
            f"the model has {found.num_hidden_layers} layers, and {MANIFEST} records a growth from "
            f"{num_layers} to {len(sources)}"
        )
    if (lost := next((i for i in range(num_layers) if i not in last), None)) is not None:
        raise ModelError(f"no layer of the grown model is layer {lost} of the base as it was")
    layers = tuple(LayerSource(last[i]) for i in range(num_layers))
    step = GrowthStep("ungrow", {}, layers, preserves_function=False)
    try:
        base = checked(found, apply_layer_map(found, layers, step))
    except UsageError as error:
        raise ModelError(f"of its older layers alone there is no model: {error}") from error
    tensors = {
        name: TensorPlan(one.dtype, Stored(SINGLE, name, 0, one.shape, one.dtype))
        for name, one in base.tensors.items()
    }
    layer_map = tuple(LayerSource(i) for i in range(num_layers))
    return replace(base, folder="", layer_map=layer_map, tensors=tensors, files={}, steps=())


def becomes_mixture(link: Link) -> bool:
    """Say whether a growth made experts of MLPs, so that its base is of another family."""
    return link.base.num_experts is None and any(adds_experts(step.operator) for step in link.steps)


def kept_since(config: Mapping[str, Any], link: Link | None) -> dict[str, Kept] | None:
    """Return which entries of a model are older than its last growth; None if layers tell it all.

    Args:
        config: The config of the model, of a family with a table.
        link: The growth, if there was one.

    Raises:
        ModelError: A recorded step cannot be run, or gives another layer map than recorded.
        VerificationError: The record makes another promise than the operator.
    """
    if link is None or _is_of_layers(
        (step.operator for step in link.steps), link.base.widths, link.result.widths
    ):
        return None
    return kept_entries(replay(recorded_base(config, link, "F32"), link, is_draft=True))


def kept_by(base: GrowthPlan, step: tuple[str, Mapping[str, object]]) -> dict[str, Kept] | None:
    """Return what `kept_since` would of a model that a step of growth has made.

    Args:
        base: The plan of the model that grows.
        step: The operator and its arguments.

    Raises:
        UsageError: The step cannot be.
    """
    tensors = {
        name: replace(tensor, recipe=Stored(SINGLE, name, 0, tensor.shape, tensor.dtype))
        for name, tensor in base.tensors.items()
    }
    layers = tuple(LayerSource(i) for i in range(base.num_hidden_layers))
    blank = replace(base, tensors=tensors, layer_map=layers, steps=())
    grown = planned(blank, [step], is_draft=True)
    if _is_of_layers([step[0]], widths_of(base), widths_of(grown)):
        return None
    return kept_entries(grown)


def _is_of_layers(
    operators: Iterable[str], before: Mapping[str, int | None], after: Mapping[str, int | None]
) -> bool:
    """Say whether whole layers were added and nothing else, by the steps and the widths."""
    return before == after and not any(adds_experts(one) or unties(one) for one in operators)
