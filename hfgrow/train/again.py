"""The recipe beside a trained model, by which it is made again: written for others, and found."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hfgrow.checkpoint.files import CONFIG, RECIPE, REPO_ID
from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.console import Progress
from hfgrow.errors import UsageError, command, printable
from hfgrow.growth.models import files_of, locate
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.card import MAX_RECIPE_NBYTES
from hfgrow.train.recipe.files import shipped_recipes
from hfgrow.train.recipe.recipe import Recipe

# What concerns the run that was, and not one that makes its model again.
_OWN = ("push", "trackers")


def portable_recipe(recipe: Recipe, base: ModelRef | None) -> str:
    """Return a recipe as others can run it: YAML, every default spelt out.

    Paths that begin with `/`, `~` or `../` are cut to their last part, the base is pinned to its
    commit, and nothing is pushed.

    Args:
        recipe: The recipe that a model was made by.
        base: What its base was found to be; None for a fresh model.
    """
    content = recipe.model_dump(mode="json")
    for key in _OWN:
        content.pop(key, None)
    content["output"] = _last_part(content["output"])
    if base is not None and base.repo_id is not None and base.revision is not None:
        pinned = f"hf://{base.repo_id}@{base.revision}"
        for key in ("base", "tokenizer"):
            content[key] = pinned if content.get(key) == recipe.base else content.get(key)
    for key in ("base", "tokenizer"):
        content[key] = _without_folders(content.get(key))
    for source in (*content["data"]["train"], *content["data"].get("validation", ())):
        if "path" in source:
            source["path"] = _without_folders(source["path"])
    written = yaml.safe_dump(
        {key: value for key, value in content.items() if value is not None},
        sort_keys=False,
        allow_unicode=True,
        width=96,
    )
    return f"# Makes this model again: hfgrow train {RECIPE}\n{written}"


@contextmanager
def recipe_file(name: str, client: HubClient, progress: Progress) -> Iterator[str]:
    """Give the recipe that a name stands for, as a file or the name of a shipped one.

    Args:
        name: A file, a recipe of hfgrow's, the folder of a run or a trained model, or a trained
            model on the Hub.
        progress: Told what is read there.

    Raises:
        GrowthError: The model is not there, or has no recipe.
    """
    path = Path(name).expanduser()
    if path.is_dir() and (path / RECIPE).is_file():
        yield str(path / RECIPE)
        return
    if path.is_dir() and name.removesuffix("/") not in shipped_recipes():
        if (path / CONFIG).is_file():
            raise _without_recipe(name, f"./{path}" if not path.is_absolute() else f"{path}")
        raise UsageError(
            f"the folder {printable(name, 200)} has no {RECIPE}",
            hint="name a YAML file, the folder of a run, or a recipe that hfgrow recipes lists",
        )
    is_id = REPO_ID.fullmatch(name) and path.suffix not in (".yaml", ".yml")
    if path.exists() or not (name.startswith(("hf://", "https://")) or is_id):
        yield name
        return
    files = files_of(locate(name, None, client, progress), client)
    if RECIPE not in files.names():
        raise _without_recipe(name, name)
    nbytes = files.nbytes(RECIPE)
    if nbytes > MAX_RECIPE_NBYTES:
        raise UsageError(f"{RECIPE} of {printable(name, 200)} has {nbytes:,} bytes: no recipe")
    progress.say(f"The recipe of {printable(name, 200)}, as its repository has it")
    with scratch_folder() as scratch:
        (scratch / RECIPE).write_bytes(files.read(RECIPE, 0, nbytes))
        yield str(scratch / RECIPE)


def _without_recipe(name: str, base: str) -> UsageError:
    """Say of a model that it cannot be made again, and how it is trained on."""
    shown = shlex.quote(printable(base, 200))
    return UsageError(
        f"{printable(name, 200)} is a model without a {RECIPE}: hfgrow did not train it, or an "
        "older one did, or the file was removed",
        hint=f"to train it on: {command('recipes demo', copy='mine.yaml')}, and "
        f"{command('train mine.yaml', set=f'base={shown}')}; hfgrow lineage {shown} says what is "
        "known of it",
    )


def _without_folders(value: Any) -> Any:
    """Return a path of this machine as its last part, and anything else as it is."""
    if isinstance(value, str) and (value.startswith(("/", "~", "../"))):
        return f"./{_last_part(value)}"
    return value


def _last_part(path: str) -> str:
    return Path(path).expanduser().absolute().name
