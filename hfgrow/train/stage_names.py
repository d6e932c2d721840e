"""What the models of a run are called: after the base, and what each stage does to it."""

from pathlib import Path
from typing import Any

from hfgrow.growth.models import base_name
from hfgrow.hub.listing import ModelRef

# The longest name of a stage's folder; those of many growths would grow without end.
_MAX_NAME = 100


def stage_name(base: dict[str, Any], folder_base: dict[str, Any], number: int, suffix: str) -> str:
    """Return the name of the model after a stage.

    Args:
        base: The record of the model that the run begins with.
        folder_base: That of the model that the stage begins with.
        number: The stage, from 0.
        suffix: What the stage does.
    """
    name = f"{folder_base['name']}-{suffix}"
    return name if len(name) <= _MAX_NAME else f"{base['name'][:_MAX_NAME]}-stage-{number}"


def base_record(folder: Path, base: Path, ref: ModelRef | None) -> dict[str, Any]:
    """Return how a lineage names a model that a stage begins with.

    Args:
        folder: Where it lies.
        base: Where the model lies that the run begins with.
        ref: Where that comes from; None for a fresh model.
    """
    if folder != base:
        return {"name": folder.name}
    if ref is None:
        return {"name": "base"}
    return {"name": base_name(ref), "repo_id": ref.repo_id, "revision": ref.revision}
