"""One process of a run, from the recipe to the finished and pushed model."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.locks import held
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_apart
from hfgrow.console import Progress, Silent
from hfgrow.growth.loading import TRAINING, require
from hfgrow.growth.models import local_folder, locate
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.plan.plan import LayerSource
from hfgrow.train.devices import Devices, lost
from hfgrow.train.foresee import foresee
from hfgrow.train.fresh import write_fresh
from hfgrow.train.growing import last_growth
from hfgrow.train.pushing import ask_for_push, push_result
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
        StoppedError: A signal stopped the run; what was saved stays.
    """
    require("training", *TRAINING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    devices = open_devices(job.recipe, on_cpu=job.on_cpu)
    holding = ExitStack()
    try:
        with devices.stop.listening():
            return _carried_out(job, devices, holding)
    except RuntimeError as error:
        if devices.num_processes > 1 and _is_lost(error):
            raise lost(error) from error
        raise
    finally:
        holding.close()
        # One of several that fails stays until it has said so: once it leaves, they all end.
        if devices.num_processes == 1 or sys.exc_info()[0] is None:
            devices.close()


def _carried_out(job: Job, devices: Devices, holding: ExitStack) -> dict[str, Any]:
    recipe = job.recipe
    progress: Progress = _Stderr() if devices.is_main and not job.quiet else Silent()
    client = HubClient(token=job.token)
    folder = RunFolder(Path(recipe.output).expanduser())
    refs = _located(recipe, devices, progress, client)
    for ref in refs:
        if ref is not None and ref.path is not None:
            check_apart(folder.path, ref.path)
    devices.on_main(lambda: holding.enter_context(held(folder.path, hint=_BUSY)))
    resume = devices.told(job.resume and folder.holds_a_run)
    if job.resume and not resume:
        progress.say("Note: there is no run to go on with; it begins")
    if not resume:
        devices.on_main(folder.begin)
    _check_output(folder, devices)
    devices.on_main(lambda: ask_for_push(recipe, refs[0], client))
    base, tokenizer = _models(recipe, refs, folder, devices, progress, client)
    devices.on_main(lambda: list(foresee(recipe, read(LocalFolder(base)), _layer_map(base))))
    runner = Runner(recipe, base, refs[0], tokenizer, devices, progress, client)
    final = runner.run(resume=resume, allow_world_change=job.allow_world_change)
    pushed = devices.on_main(lambda: push_result(recipe, final, client, progress))
    return {"folder": str(final), **(pushed or {})}


def _check_output(folder: RunFolder, devices: Devices) -> None:
    """Make sure that every process sees what the main one writes."""
    mark = devices.shared(folder.leave_mark)
    try:
        devices.check_same("output", mark.exists())
    finally:
        if devices.is_main:
            mark.unlink(missing_ok=True)


def _located(
    recipe: Recipe, devices: Devices, progress: Progress, client: HubClient
) -> list[ModelRef | None]:
    """Return what base and tokenizer stand for; None for what has no name."""
    names = (recipe.base, recipe.tokenizer)
    # One process asks, so that all of them read the same commit.
    return devices.shared(
        lambda: [
            locate(name, None, client, progress) if isinstance(name, str) else None
            for name in names
        ]
    )


def _models(
    recipe: Recipe,
    refs: Sequence[ModelRef | None],
    folder: RunFolder,
    devices: Devices,
    progress: Progress,
    client: HubClient,
) -> tuple[Path, Path]:
    """Return the base and the folder of the tokenizer."""

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
    return base, tokenizer or base


def _layer_map(base: Path) -> tuple[LayerSource, ...] | None:
    growth = last_growth(base)
    return None if growth is None else growth.layer_sources


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("connection", "timed out", "timeout", "gloo", "nccl"))
