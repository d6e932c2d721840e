"""Recipes as files, of the user and of hfgrow, with overrides such as `a.b=c` put in."""

import copy
import difflib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.strict import parse_yaml, read_bounded
from hfgrow.errors import UsageError, argument, printable

_SHIPPED = "hfgrow_recipes"
_SUFFIX = ".yaml"
# What is in a folder of them, in a word.
_KINDS = {"": "recipe", "studies": "study", "growths": "growth"}
_MAX_NBYTES = 1 << 16


def shipped_recipes(folder: str = "") -> dict[str, Traversable]:
    """Return the recipes that travel with hfgrow, by name, in alphabetical order.

    Args:
        folder: The folder inside that of the recipes: `studies` holds those of studies, `growths`
            steps of growth.
    """
    recipes = files(_SHIPPED) / folder if folder else files(_SHIPPED)
    found = [item for item in recipes.iterdir() if item.name.endswith(_SUFFIX)]
    return {item.name.removesuffix(_SUFFIX): item for item in sorted(found, key=lambda i: i.name)}


def summary_of(recipe: Traversable) -> str:
    """Return what a shipped recipe is, as its first line says it."""
    first, _, _ = recipe.read_text(encoding="utf-8").partition("\n")
    return first.removeprefix("#").strip()


def find_recipe(recipe: str | Path, folder: str = "") -> Traversable:
    """Return the file of a recipe.

    Args:
        recipe: A file, or the name of a shipped recipe, with or without `.yaml`; a file wins.
        folder: Where shipped ones are, as in `shipped_recipes`.

    Raises:
        UsageError: It is neither.
    """
    path = Path(recipe).expanduser()
    if path.exists() and not (folder and path.is_dir()):
        return path
    name, shipped = str(recipe).removesuffix(_SUFFIX), shipped_recipes(folder)
    shown = printable(recipe, 200)
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1)
    raise UsageError(
        f"there is no {_KINDS[folder]} {shown}: neither a file nor one of hfgrow's",
        hint=f"did you mean {near[0]}?" if near else f"one of {', '.join(shipped)}",
    )


def read_recipe(recipe: str | Path, folder: str = "") -> dict[Any, Any]:
    """Read the mapping that a recipe's file holds; what it says is not looked at.

    Args:
        recipe: A file, or the name of a shipped recipe.
        folder: Where shipped ones are, as in `shipped_recipes`.

    Raises:
        UsageError: There is none, it cannot be read, or is no mapping in plain YAML.
    """
    shown = f"the recipe {printable(recipe, 200)}"
    raw = read_bounded(find_recipe(recipe, folder), _MAX_NBYTES, shown)
    try:
        content = parse_yaml(raw)
    except UsageError as error:
        raise UsageError(f"{shown}: {error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise UsageError(f"{shown} holds {found}, not a mapping of keys")
    return content


_MAX_PARTS = 8


def with_overrides(content: Mapping[Any, Any], overrides: Iterable[str]) -> dict[Any, Any]:
    """Return a recipe, as it was read, with values put in; the recipe itself stays as it is.

    Args:
        overrides: Each `path=value`. The path is keys and 0-based list indices between dots, such
            as `stages.0.train.tokens`; what it leads through is made where it is missing, and the
            index after the last appends. The value is YAML; an empty one is null.

    Raises:
        UsageError: One has no `=`, its value is no YAML, or its path leads through a value.
    """
    result = copy.deepcopy(dict(content))
    for override in overrides:
        shown = argument("overrides", override)
        path, equals, text = override.partition("=")
        parts = path.strip().split(".")
        if not equals or not all(parts) or len(parts) > _MAX_PARTS:
            raise UsageError(
                f"{shown} is no path=value",
                hint=f"such as {argument('overrides', 'batch_tokens=1M')}",
            )
        try:
            value = parse_yaml(text.encode())
            _put(result, parts, value)
        except UsageError as error:
            raise UsageError(f"{shown}: {error}", hint=error.hint) from error
    return result


def _put(content: dict[Any, Any], parts: list[str], value: Any) -> None:
    current: Any = content
    for i, part in enumerate(parts):
        key = _key(current, part, ".".join(parts[:i]))
        is_new = key == len(current) if isinstance(current, list) else current.get(key) is None
        if i == len(parts) - 1:
            inside = value
        elif is_new:
            inside = [] if parts[i + 1].isdecimal() else {}
        else:
            inside = current[key]
        if isinstance(current, list) and is_new:
            current.append(inside)
        else:
            current[key] = inside
        current = inside


def _key(current: Any, part: str, path: str) -> Any:
    """Return a part of the path as what `current` is looked up by."""
    if isinstance(current, dict):
        return part
    if not isinstance(current, list):
        raise UsageError(f"{path} is {printable(repr(current))}, which has no {printable(part)}")
    if not part.isdecimal() or len(part) > 9 or int(part) > len(current):
        raise UsageError(
            f"{path} is a list of {len(current)}; {printable(part)} is no index into it",
            hint=f"0 to {len(current) - 1}, or {len(current)} to append",
        )
    return int(part)
