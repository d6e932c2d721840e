"""What hfgrow.json records of a plan: sizes, files, and the versions it depends on."""

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from hfgrow import __version__
from hfgrow.checkpoint.layout import Layout
from hfgrow.lineage import WIDTHS, Model, WeightFile
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan, needs_torch
from hfgrow.plan.tensors import Stored


def describe(
    plan: GrowthPlan,
    name: str,
    *,
    files: Mapping[str, WeightFile],
    repo_id: str | None = None,
    revision: str | None = None,
) -> Model:
    """Return the record of the model that a plan describes."""
    return Model(
        name=name,
        repo_id=repo_id,
        revision=revision,
        num_hidden_layers=plan.num_hidden_layers,
        num_parameters=plan.num_parameters,
        num_non_embedding_parameters=non_embedding_parameters(plan),
        files=files,
        **widths_of(plan),
    )


def widths_of(plan: GrowthPlan) -> dict[str, int]:
    """Return the sizes of the axes of width, by config key."""
    sizes = FAMILIES[plan.family].sizes(plan.config)
    return {key: sizes[axis] for key, axis in WIDTHS.items()}


def num_computed(plan: GrowthPlan) -> int:
    """Return how many tensors are more than a tensor of the base, copied or converted."""
    return sum(not isinstance(tensor.recipe, Stored) for tensor in plan.tensors.values())


def non_embedding_parameters(plan: GrowthPlan) -> int:
    """Return the parameters outside the embeddings and the output head."""
    outside = {"model.embed_tokens.weight", "lm_head.weight"}
    return sum(t.num_elements for name, t in plan.tensors.items() if name not in outside)


def layout_files(layout: Layout) -> dict[str, WeightFile]:
    """Return the records of the files of a layout, before anyone has read them."""
    return {shard.name: WeightFile(shard.nbytes) for shard in layout.shards}


def versions(plan: GrowthPlan) -> dict[str, str]:
    """Return the versions that a growth depends on; those of torch and numpy if they compute."""
    computes = any(map(needs_torch, plan.tensors.values()))
    return versions_of("torch", "numpy") if computes else versions_of()


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of hfgrow, Python, and those of some packages that are installed."""
    found = {"hfgrow": __version__, "python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
