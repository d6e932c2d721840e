"""One process of a run, from the recipe to the finished and pushed model."""

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.lock import held
from hfgrow.checkpoint.read import read
from hfgrow.extras import TRAINING, require
from hfgrow.hub.client import HubClient
from hfgrow.hub.resolve import ModelRef
from hfgrow.plan import LayerSource
from hfgrow.progress import Progress, Silent
from hfgrow.source import local_folder, locate
from hfgrow.train.devices import Devices, lost
from hfgrow.train.foresee import foresee
from hfgrow.train.fresh import write_fresh
from hfgrow.train.growing import last_growth
from hfgrow.train.recipe import Recipe
from hfgrow.train.recipe_parts import FreshModel
from hfgrow.train.run import Runner
from hfgrow.train.run_folder import RunFolder
from hfgrow.train.world import open_devices

_BUSY = "wait for it, or choose another output"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process was asked for.

    Attributes:
        recipe: The recipe.
        resume: Whether a run that lies in the output goes on.
        on_cpu: Whether accelerators are left alone.
        allow_world_change: Whether it may go on with another number of processes.
        quiet: Whether nothing is said.
        token: The Hub token; None takes the environment's or the logged-in one.
    """

    recipe: Recipe
    resume: bool = False
    on_cpu: bool = False
    allow_world_change: bool = False
    quiet: bool = False
    token: str | None = None


class _Stderr(Silent):
    """Says lines on stderr."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def carry_out(job: Job) -> dict[str, Any]:
    """Run a recipe in this process, together with the others of the run.

    Returns:
        `folder` of the finished model, and `url` if it was pushed.

    Raises:
        GrowthError: Anything that the user can act on.
        StoppedError: A signal stopped the run, and its checkpoint is saved.
    """
    require("training", *TRAINING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    recipe = job.recipe
    devices = open_devices(recipe, on_cpu=job.on_cpu)
    progress: Progress = _Stderr() if devices.is_main and not job.quiet else Silent()
    client = HubClient(token=job.token)
    folder = RunFolder(Path(recipe.output).expanduser())
    holding = ExitStack()
    try:
        devices.on_main(lambda: holding.enter_context(held(folder.path, hint=_BUSY)))
        resume = devices.told(job.resume and folder.holds_a_run)
        if job.resume and not resume:
            progress.say("Note: there is no run to go on with; it begins")
        if not resume:
            devices.on_main(folder.begin)
        devices.on_main(lambda: _preflight(recipe, client))
        base, ref, tokenizer = _models(recipe, folder, devices, progress, client)
        devices.on_main(lambda: list(foresee(recipe, read(LocalFolder(base)), _layer_map(base))))
        runner = Runner(recipe, base, ref, tokenizer, devices, progress, client)
        final = runner.run(resume=resume, allow_world_change=job.allow_world_change)
        pushed = devices.on_main(lambda: _push(recipe, final, client, progress))
    except RuntimeError as error:
        if devices.num_processes > 1 and _is_lost(error):
            raise lost(error) from error
        raise
    finally:
        holding.close()
        # One of several that fails stays until it has said so: once it leaves, they all end.
        if devices.num_processes == 1 or sys.exc_info()[0] is None:
            devices.close()
    return {"folder": str(final), **(pushed or {})}


def _models(
    recipe: Recipe, folder: RunFolder, devices: Devices, progress: Progress, client: HubClient
) -> tuple[Path, ModelRef | None, Path]:
    """Return the base, where it comes from, and the folder of the tokenizer."""
    names = (recipe.base, recipe.tokenizer)
    # One process asks what a name stands for, so that all of them read the same commit.
    refs = devices.shared(
        lambda: [
            locate(name, None, client, progress) if isinstance(name, str) else None
            for name in names
        ]
    )

    def fetch(teller: Progress) -> list[Path | None]:
        return [local_folder(ref, client, teller) if ref else None for ref in refs]

    # The main process downloads; the others find what it has.
    devices.on_main(lambda: fetch(progress))
    base, tokenizer = fetch(Silent())
    if isinstance(recipe.base, FreshModel):
        fresh, vocabulary = recipe.base, tokenizer
        assert vocabulary is not None
        if not devices.told(folder.fresh.exists()):
            devices.on_main(lambda: write_fresh(fresh, vocabulary, recipe.seed, folder.fresh))
        base = folder.fresh
    assert base is not None
    sizes = {name: file.nbytes for name, file in read(LocalFolder(base)).files.items()}
    devices.check_same("base", sizes)
    return base, refs[0], tokenizer or base


def _layer_map(base: Path) -> tuple[LayerSource, ...] | None:
    growth = last_growth(base)
    return None if growth is None else growth.layer_sources


def _preflight(recipe: Recipe, client: HubClient) -> None:
    """Ask before any work whether the result may be pushed."""
    if recipe.push is None:
        return
    from hfgrow.hub.preflight import preflight

    name = Path(recipe.output).name
    preflight(
        ModelRef(name),
        recipe.push.repo,
        name,
        client,
        private=recipe.push.private,
        exist_ok=False,
        create_pr=False,
    )


def _push(
    recipe: Recipe, final: Path, client: HubClient, progress: Progress
) -> Mapping[str, Any] | None:
    if recipe.push is None:
        return None
    from hfgrow.release import publish

    pushed = publish(final, recipe.push.repo, client, progress, private=recipe.push.private)
    progress.say(f"Pushed: {pushed.url}")
    return {"url": pushed.url}


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("connection", "timed out", "timeout", "gloo", "nccl"))
