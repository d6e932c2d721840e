"""Records of growths that nobody made, and chains of them."""

import json
from typing import Any

from hfgrow.lineage.manifest import Link, Manifest, Model, WeightFile
from hfgrow.plan.plan import GrowthStep, LayerSource
from hfgrow.plan.promise import Measured

MEASURED = Measured("a probe text", 512, "float32", 2.5, 3.25, 4.0, 0.5, 0.75, 0.125, 20.0)


def model(num_layers: int, **more: Any) -> Model:
    """A model of 10 parameters a layer."""
    files = {"model.safetensors": WeightFile(100 * num_layers, "ab" * 32)}
    return Model("name", num_layers, 10 * num_layers, 8 * num_layers, files, **more)


def link(num_layers: int, layer_map: list[int], **more: Any) -> Link:
    """A stack of a model that has a repository."""
    step = GrowthStep("stack", {"g": 2}, tuple(LayerSource(i) for i in layer_map), False)
    return Link(
        base=model(num_layers, repo_id="org/base", revision="0" * 40),
        steps=(step,),
        dtype=None,
        max_shard_nbytes=50 * 10**9,
        result=model(len(layer_map)),
        versions={"hfgrow": "0"},
        **more,
    )


CHAIN = (link(2, [0, 1, 0, 1], measured=MEASURED, card={"license": "mit"}), link(4, [3, 2, 1, 0]))
DOCUMENT: dict[str, Any] = json.loads(Manifest(CHAIN).to_json())
# Two layers twice.
GROWN = link(2, [0, 1, 0, 1])
