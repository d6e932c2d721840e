"""A growth as its record tells it, where the base is not at hand: shapes without weights."""

from collections.abc import Mapping
from typing import Any

from hfgrow.checkpoint.files import SINGLE
from hfgrow.growth.reproduce import replay
from hfgrow.lineage.manifest import Link
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan, LayerSource, TensorPlan
from hfgrow.plan.tensors import Stored
from hfgrow.plan.undo import first_copies_of_layers


def recorded_base(config: Mapping[str, Any], link: Link, dtype: str) -> GrowthPlan:
    """Return the plan of a growth's base, its tensors by name and shape alone.

    Args:
        config: The config of the grown model, of a family with a table.
        link: How it was grown.
        dtype: The dtype of its tensors, in safetensors' words.
    """
    family = FAMILIES[config["model_type"]]
    num_layers, first = link.base.num_hidden_layers, first_copies_of_layers(link.layer_sources)
    settings = {**config, **{key: size for key, size in link.base.widths.items() if size}}
    for key in family.per_layer_lists:
        if settings.get(key) is not None:
            settings[key] = [settings[key][first.get(i, i)] for i in range(num_layers)]
    if link.changes_layers:
        settings |= {key: num_layers for key in family.layer_counts if key in settings}
    unties = any(step.operator == "untie" for step in link.steps)
    settings |= {"tie_word_embeddings": True} if unties else {}
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


def recorded_growth(config: Mapping[str, Any], link: Link, dtype: str) -> GrowthPlan:
    """Return the plan of a growth whose leaves are the tensors of its base, by name and shape.

    Args:
        config: As in `recorded_base`.
        link: As there.
        dtype: As there.

    Raises:
        ModelError: A recorded step cannot be run, or gives another layer map than recorded.
        VerificationError: The record makes another promise than the operator.
    """
    return replay(recorded_base(config, link, dtype), link, is_draft=True)
