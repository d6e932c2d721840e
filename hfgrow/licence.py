"""What a licence that is passed on asks of whoever publishes a model made from its base."""

from collections.abc import Mapping
from typing import Any

from hfgrow.describe import plain

# What stands for a licence in a card's metadata and names none.
_UNNAMED = ("other", "unknown")


def licence_note(metadata: Mapping[str, Any], *, is_from_scratch: bool) -> str:
    """Return what to look at before a model is published; empty where the licence says it all.

    Nothing is invented and nothing judged: the licence is known by its name only.

    Args:
        metadata: What the model's card inherits.
        is_from_scratch: Whether the model has no base that somebody else made.
    """
    if "license" not in metadata:
        if is_from_scratch:
            return "It names no licence: choose one before you publish it."
        return "The base's card names no licence; ask its authors before you publish this."
    licence, name, link = (
        plain(metadata.get(key, "")) for key in ("license", "license_name", "license_link")
    )
    if licence.lower() in _UNNAMED:
        name = name or "one of its own"
        where = f" ({link})" if link else ""
        return (
            f"The base's licence is {name}{where}; read whether a model made from it may be "
            "published, and how."
        )
    parts = licence.lower().split("-")
    if "nd" in parts:
        return f"The base's licence, {licence}, lets nobody share what is made from it."
    if "nc" in parts or "noncommercial" in parts:
        return f"The base's licence, {licence}, allows no commercial use, of this model either."
    return ""
