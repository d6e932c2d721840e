"""The table of short names: the one of this package first, then the user's own."""

import os
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.hub.listing import is_sha

_REPO_ID = re.compile(r"[\w.\-]{1,96}/[\w.\-]{1,96}", re.ASCII)
_KEYS = {"repo", "revision", "note"}


@dataclass(frozen=True)
class Alias:
    """A short name of a model on the Hub.

    Args:
        name: The name, in the spelling of its table.
        repo_id: The repository.
        revision: The commit that the alias means, None for the newest.
        note: What one should know of the model.
        origin: The table of the user that it stands in; None is the one of this package.
    """

    name: str
    repo_id: str
    revision: str | None = None
    note: str = ""
    origin: str | None = None


def load_aliases() -> dict[str, Alias]:
    """Return all aliases by their name in lower case; a built-in one is never overridden.

    Raises:
        UsageError: The user's own table is not what it should be.
    """
    builtin = (files("hfgrow.hub") / "aliases.toml").read_text(encoding="utf-8")
    return _own_aliases() | _table(builtin, "the built-in table", None)


def _own_aliases() -> dict[str, Alias]:
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = Path(config) / "hfgrow" / "aliases.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the aliases in {printable(path, 200)}: {error}") from error
    return _table(text, printable(path, 200), printable(path, 200))


def _table(text: str, where: str, origin: str | None) -> dict[str, Alias]:
    try:
        entries = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not TOML: {printable(error, 120)}") from error
    return {name.casefold(): _alias(name, entry, where, origin) for name, entry in entries.items()}


def _alias(name: str, entry: Any, where: str, origin: str | None) -> Alias:
    entry = {"repo": entry} if isinstance(entry, str) else entry
    shown = f"the alias {printable(name)!r} in {where}"
    if not isinstance(entry, dict) or not all(isinstance(text, str) for text in entry.values()):
        raise UsageError(
            f"{shown} must be a table of texts",
            hint='quote a name with a dot in it: ["Model-1.7B"]',
        )
    if unknown := sorted(set(entry) - _KEYS):
        raise UsageError(f"{shown} has the unknown key {printable(unknown[0])!r}")
    repo_id, revision = entry.get("repo", ""), entry.get("revision")
    if not _REPO_ID.fullmatch(repo_id):
        raise UsageError(f"{shown} has repo {printable(repo_id)!r}; expected org/name")
    if revision is not None and not is_sha(revision):
        raise UsageError(f"{shown} has revision {printable(revision)!r}; expected a full hash")
    return Alias(name, repo_id, revision, entry.get("note", ""), origin)
