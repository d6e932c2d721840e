"""The folder of a run where that of a model is wanted: its model lies inside."""

import shlex
from pathlib import Path

from hfgrow.errors import UsageError, printable
from hfgrow.names import CONFIG, RECIPE, RUN, TRAINED


def is_run(folder: Path) -> bool:
    """Say whether this is the folder of a run, and not that of a model."""
    return (folder / RUN).is_file() and not (folder / CONFIG).is_file()


def refuse_run(folder: Path) -> None:
    """Refuse the folder of a run; say where its model is, or how the run goes on to have one.

    Raises:
        UsageError: It is one.
    """
    if not is_run(folder):
        return
    shown, model = printable(folder, 200), folder / TRAINED
    if (model / CONFIG).is_file():
        where = printable(model, 200)
        raise UsageError(
            f"{shown} is the folder of a run; its model is {where}", hint=f"give {where}"
        )
    recipe = folder / RECIPE
    known = shlex.quote(printable(recipe, 200)) if recipe.is_file() else "RECIPE"
    raise UsageError(
        f"{shown} is the folder of a run that is not finished, so it has no model in {TRAINED} yet",
        hint=f"hfgrow train {known} --resume",
    )
