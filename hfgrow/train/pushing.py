"""Pushing what a run has trained: what would stop it, before anything trains, and the push."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import MANIFEST
from hfgrow.console import Progress
from hfgrow.errors import ModelError
from hfgrow.growth.models import files_of
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.manifest import Manifest
from hfgrow.lineage.reading import manifest_of
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.run_folder import run_name


def check_push(recipe: Recipe, base: ModelRef | None, client: HubClient) -> None:
    """Ask before any work whether the model of a run may be pushed.

    Raises:
        GrowthError: The Hub refuses or does not answer, or the name is the base's own.
    """
    if recipe.push is None:
        return
    from hfgrow.growth.publish import visible_as
    from hfgrow.hub.preflight import preflight

    name = run_name(recipe)
    ref = ModelRef(name)
    if base is not None:
        seen = visible_as(base.label, _manifest(base, client), client)
        ref = replace(
            seen,
            repo_id=base.repo_id,
            private=seen.private or base.private,
            gated=seen.gated or base.gated,
        )
    preflight(
        ref,
        recipe.push.repo,
        name,
        client,
        private=recipe.push.private,
        exist_ok=False,
        create_pr=False,
    )


def push_model(
    recipe: Recipe, final: Path, client: HubClient, progress: Progress
) -> dict[str, Any]:
    """Push the finished model where the recipe says so, and return its `url`."""
    if recipe.push is None:
        return {}
    from hfgrow.growth.publish import publish

    # By the name that was asked about: a last stage of growth has another one of its own.
    repo = recipe.push.repo or run_name(recipe)
    pushed = publish(final, repo, client, progress, private=recipe.push.private)
    progress.say(f"Pushed: {pushed.url} ({pushed.visibility})")
    return {"url": pushed.url, "private": pushed.private, "commit": pushed.commit}


def _manifest(base: ModelRef, client: HubClient) -> Manifest | None:
    files = files_of(base, client)
    try:
        return manifest_of(files) if MANIFEST in files.names() else None
    except ModelError:
        # It is no base's lineage that its growth or training would go on with.
        return None
