"""The bundled script, with one process that behaves as ODD says: what a real fault would do."""

import os
import runpy
import tempfile
import time
from typing import Any

from hfgrow.errors import TrainingError
from hfgrow.train import loop as loop_module
from hfgrow.train import text as texts_module
from tests.train.runs import SCRIPT

loop: Any = loop_module
texts: Any = texts_module
rank = int(os.environ["RANK"])
step, folders, views = loop.take_step, texts.token_folders, texts.views_of


def raising(run: Any, *arguments: Any) -> Any:
    if rank == 1 and run.position.step == 3:
        raise TrainingError("this process alone has it")
    return step(run, *arguments)


def waiting(*arguments: Any, **options: Any) -> Any:
    time.sleep(12 if rank == 0 else 0)
    return folders(*arguments, **options)


def reading_less(*arguments: Any, **options: Any) -> Any:
    found = views(*arguments, **options)
    return tuple(view.between(0, view.num_tokens // 2) for view in found) if rank == 1 else found


match os.environ["ODD"]:
    case "stands-elsewhere" if rank == 1:
        os.chdir(tempfile.mkdtemp())
    case "raises":
        loop.take_step = raising
    case "waits":
        texts.token_folders = waiting
    case "reads-other-text":
        texts.views_of = reading_less
runpy.run_path(str(SCRIPT), run_name="__main__")
