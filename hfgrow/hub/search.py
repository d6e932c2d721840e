"""What an unknown bare name could mean: candidates to choose from, never a choice made.

The table of short names: the one of this package first, then the user's own.
"""

import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfgrow.checkpoint.files import REPO_ID
from hfgrow.errors import GrowthError, HubUnreachableError, UsageError, printable, said
from hfgrow.hub.client import TRANSFER_WAITS_S, HubClient
from hfgrow.hub.listing import is_sha
from hfgrow.plan.families import FAMILIES

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo


_NUM_SHOWN = 5
_NUM_ASKED = 10
_SHORTEST_START = 4
# The library tries a search six times within 23 s, and says each; one question says the same.
_REACH_S = 5
# Nothing that can be grown: quantised, converted, or not a model of its own.
_UNFIT = ("gguf", "gptq", "awq", "4bit", "8bit", "bnb", "mlx", "exl2", "fp8", "lora", "adapter")


def with_candidates(error: UsageError, name: str, client: HubClient) -> GrowthError:
    """Return the error for an unknown name, with what it is like here, on the Hub or in the cache.

    Returns:
        A UsageError with up to five ids in `details["candidates"]`, or a HubUnreachableError if
        neither the Hub nor the cache can tell, and no folder has the name.
    """
    found, where = _like_an_alias(name), "known here"
    try:
        # A misspelt alias needs no network.
        if not found:
            found, where = _on_hub(name, client), "on the Hub"
    except HubUnreachableError as unreachable:
        found = [] if client.anonymous else _in_cache(name)
        if not found and error.details.get("is_folder"):
            return error
        if not found:
            return HubUnreachableError(
                f"{error}, and the Hub cannot be asked for it", hint=unreachable.hint or error.hint
            )
    found = found[:_NUM_SHOWN]
    details: dict[str, object] = {"candidates": found}
    if not found:
        return UsageError(
            f"{error}, and the Hub knows none either", hint=error.hint, details=details
        )
    return UsageError(
        f"{error}; {where}: {', '.join(found)}",
        hint=f"name the one you mean, such as: hfgrow inspect {found[0]}",
        details=details,
    )


def _like_an_alias(name: str) -> list[str]:
    import difflib

    table = {DEMO: DEMO, **{name: alias.repo_id for name, alias in load_aliases().items()}}
    word = name.casefold()
    close = difflib.get_close_matches(word, table, n=2, cutoff=0.85)
    # The start of some, such as qwen3, means one of them.
    begun = [alias for alias in table if len(word) >= _SHORTEST_START and alias.startswith(word)]
    return [table[alias] for alias in close or begun]


def _on_hub(name: str, client: HubClient) -> list[str]:
    def search() -> list["ModelInfo"]:
        return list(
            client.api.list_models(
                search=name,
                pipeline_tag="text-generation",
                sort="downloads",
                limit=_NUM_ASKED,
                expand=[
                    "downloads",
                    "likes",
                    "safetensors",
                    "config",
                    "baseModels",
                    "gated",
                    "library_name",
                ],
            )
        )

    if not name.isascii() or not name.isprintable():
        return []
    what = f"searching for {printable(name)}"
    client.ask(what, lambda: _reach(client), waits_s=())
    models = client.ask(what, search, waits_s=TRANSFER_WAITS_S)
    return _ranked(name, models)


def _reach(client: HubClient) -> None:
    """Ask the Hub for anything at all, once."""
    from huggingface_hub import get_session

    # The first use of the client replaces the session.
    address = client.endpoint
    get_session().head(address, timeout=_REACH_S)


def _ranked(name: str, models: Iterable["ModelInfo"]) -> list[str]:
    """Order candidates: the very name, roots, families we know, safetensors, downloads."""
    wanted = name.casefold()

    def rank(model: "ModelInfo") -> tuple[bool, bool, bool, bool, bool, int]:
        org, _, short = model.id.casefold().partition("/")
        model_type = (model.config or {}).get("model_type")
        return (
            short != wanted,
            bool(model.base_models),
            model_type not in FAMILIES,
            model.safetensors is None,
            org != wanted,
            -(model.downloads or 0),
        )

    fit = [
        model
        for model in models
        if model.id.count("/") == 1
        and model.id == printable(model.id, 200)
        and not any(word in model.id.casefold() for word in _UNFIT)
        and (model.library_name or "transformers") == "transformers"
    ]
    return [model.id for model in sorted(fit, key=rank)]


def _in_cache(name: str) -> list[str]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    models = [repo.repo_id for repo in repos if repo.repo_type == "model"]
    return sorted(model for model in models if name.casefold() in model.casefold())


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
        raise UsageError(f"{where} is not TOML: {said(error, 120)}") from error
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
    if not REPO_ID.fullmatch(repo_id):
        raise UsageError(f"{shown} has repo {printable(repo_id)!r}; expected org/name")
    if revision is not None and not is_sha(revision):
        raise UsageError(f"{shown} has revision {printable(revision)!r}; expected a full hash")
    return Alias(name, repo_id, revision, entry.get("note", ""), origin)


DEMO = "demo"


class UnknownNameError(UsageError):
    """A bare name that is neither a folder nor an alias: the Hub may know what was meant."""
