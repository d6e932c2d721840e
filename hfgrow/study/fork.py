"""A run that goes on from where another one ended, in a folder of its own.

The fork holds what the run held after its last stage: its model as that of a stage, its last
checkpoint, its metrics. Large files are linked, not copied: none of them is ever written again.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hfgrow.checkpoint.files import RUN
from hfgrow.checkpoint.staging import translated
from hfgrow.console import short_count
from hfgrow.errors import OutputError, TrainingError, printable
from hfgrow.study.job import StudyRun
from hfgrow.train.run_folder import METRICS, RunFolder

_LINKED = (".safetensors",)


def prepare_folder(job: StudyRun, tokens: Path) -> None:
    """Make the folder of a run that has none yet: empty, or forked from the run of its base.

    Args:
        job: The run.
        tokens: The folder of tokenised text that all runs share.

    Raises:
        OutputError: It cannot be written.
        TrainingError: The run of its base is not finished.
    """
    folder = job.folder
    if folder.is_dir():
        return
    if folder.exists():
        shown = printable(folder, 200)
        raise OutputError(f"{shown} exists and is no folder of a run", hint="move it away")
    with translated(printable(folder, 200)):
        staging = folder.with_name(f".{folder.name}.forking")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        RunFolder(staging).tokens.symlink_to(
            os.path.relpath(tokens, folder), target_is_directory=True
        )
        if job.base is not None:
            _fork(RunFolder(job.base.folder), RunFolder(staging), job)
        staging.rename(folder)


def _fork(base: RunFolder, fork: RunFolder, job: StudyRun) -> None:
    checkpoints = sorted(base.checkpoints.glob("step-*"))
    if not base.final.is_dir() or not checkpoints:
        raise TrainingError(
            f"the run of the base is not finished: {printable(base.path, 200)}",
            hint="remove its folder, and run the study again",
        )
    assert job.recipe.stages[0].train is not None
    name = f"base-{short_count(job.recipe.stages[0].train.tokens)}"
    _link_tree(base.final, fork.stage(0, name))
    _link_tree(base.fresh, fork.fresh)
    _link_tree(checkpoints[-1], fork.checkpoints / checkpoints[-1].name)
    for file in (RUN, METRICS):
        shutil.copyfile(base.path / file, fork.path / file)


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    link: Callable[[str, str], object] = os.link
    if source.endswith(_LINKED):
        try:
            link(source, target)
        except OSError:
            # Another file system, or one without links.
            pass
        else:
            return
    shutil.copy2(source, target)
