"""generation_config.json travels with a model where transformers can load it."""

from pathlib import Path

from hfgrow.behaviour import TRANSFORMERS
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.strict import read_json_object
from hfgrow.console import Progress
from hfgrow.errors import ModelError, printable
from hfgrow.extras import missing

_NAME = "generation_config.json"


def settle_generation(folder: Path, progress: Progress, *, ask_transformers: bool) -> None:
    """Leave out the settings of generation if they would stop the model from loading.

    Args:
        folder: The grown model, which is not published yet.
        progress: Told if they are left out, and why.
        ask_transformers: Whether transformers loads them too.
    """
    if not (folder / _NAME).is_file():
        return
    fault = _fault(folder, ask_transformers=ask_transformers)
    if fault:
        (folder / _NAME).unlink()
        progress.say(f"Note: {_NAME} of the base was left out: {fault}")


def check_generation(folder: Path) -> None:
    """Refuse settings of generation that would stop a model from loading; none are fine.

    Raises:
        ModelError: They would.
    """
    if not (folder / _NAME).is_file():
        return
    if fault := _fault(folder, ask_transformers=not missing(*TRANSFORMERS)):
        raise ModelError(
            fault if _NAME in fault else f"{_NAME}: {fault}", hint="correct it, or remove it"
        )


def _fault(folder: Path, *, ask_transformers: bool) -> str:
    try:
        read_json_object(LocalFolder(folder), _NAME)
    except ModelError as error:
        return str(error)
    if not ask_transformers:
        return ""
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        return f"transformers refuses it: {printable(error, 200)}"
    return ""
