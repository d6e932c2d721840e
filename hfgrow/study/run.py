"""A study from its recipe to its report."""

import os
from collections.abc import Mapping
from typing import Any

from hfgrow.console import Progress
from hfgrow.study.child import Outcome, is_done
from hfgrow.study.design import Design
from hfgrow.study.folder import StudyFolder
from hfgrow.study.jobs import Queue
from hfgrow.study.text import tokenise


def run_study(
    design: Design,
    folder: StudyFolder,
    place: Mapping[str, Any],
    *,
    num_parallel: int,
    on_cpu: bool,
    progress: Progress,
) -> dict[str, Outcome]:
    """Carry out all runs of a study that are not done.

    Args:
        design: The runs.
        folder: The folder of the study, which we hold.
        place: The command and the machine, for the record.
        num_parallel: How many run at a time.
        on_cpu: Whether accelerators are left alone.
        progress: Told how it goes on.

    Returns:
        How each run ended, by its name.

    Raises:
        GrowthError: The study cannot begin.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    devices = () if on_cpu or num_parallel == 1 else _gpus()
    queue = Queue(folder, place, num_parallel, on_cpu, progress, devices)
    if not all(map(is_done, design.jobs)):
        folder.note_text(tokenise(design.jobs[0].recipe, folder.tokens, progress))
    return queue.run(design.jobs)


def _gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(filter(None, given.split(",")))
    return tuple(map(str, range(torch.cuda.device_count())))
