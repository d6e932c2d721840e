"""What an unknown bare name could mean: candidates to choose from, never a choice made."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hfgrow.errors import GrowthError, HubUnreachableError, UsageError, printable
from hfgrow.hub.aliases import load_aliases
from hfgrow.hub.client import TRANSFER_WAITS_S, HubClient
from hfgrow.hub.resolve import DEMO
from hfgrow.plan.families import FAMILIES

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_NUM_SHOWN = 5
_NUM_ASKED = 10
# Nothing that can be grown: quantised, converted, or not a model of its own.
_UNFIT = ("gguf", "gptq", "awq", "4bit", "8bit", "bnb", "mlx", "exl2", "fp8", "lora", "adapter")


def with_candidates(error: UsageError, name: str, client: HubClient) -> GrowthError:
    """Return the error for an unknown name, with what it is like here, on the Hub or in the cache.

    Returns:
        A UsageError with up to five ids in `details["candidates"]`, or a HubUnreachableError if
        neither the Hub nor the cache can tell.
    """
    found, where = _like_an_alias(name), "known here"
    try:
        # A misspelt alias needs no network.
        if not found:
            found, where = _on_hub(name, client), "on the Hub"
    except HubUnreachableError as unreachable:
        found = _in_cache(name)
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
    close = difflib.get_close_matches(name.casefold(), table, n=2, cutoff=0.85)
    return [table[alias] for alias in close]


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
    models = client.ask(f"searching for {printable(name)}", search, waits_s=TRANSFER_WAITS_S)
    return _ranked(name, models)


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
