"""What a grown model's card takes from its base's: licence and languages, as checked values.

The text of a base's card is never copied and never rendered.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import CARD, LocalFolder
from hfgrow.errors import ModelError

# Where the metadata of a card must end; the text after it is not even read.
_MAX_HEAD_NBYTES = 1 << 16
_PLAIN = re.compile(r"[A-Za-z][\w.+-]{0,63}", re.ASCII)
_URL = re.compile(r"(https?://)?[\w./#~%+-]{1,300}", re.ASCII)
_TEXTS = (("license", _PLAIN), ("license_name", _PLAIN), ("license_link", _URL))
_NOTHING = frozenset({"no", "yes", "true", "false", "null", "none"})
_MAX_LANGUAGES = 300


def inherited(folder: Path) -> dict[str, Any]:
    """Return the metadata that the card in a model folder hands on.

    A card that cannot be read gives nothing: it is the base's fault, and no reason not to grow.
    """
    import yaml

    files = LocalFolder(folder)
    try:
        text = files.read(CARD, 0, _MAX_HEAD_NBYTES).decode("utf-8", errors="replace")
    except ModelError:
        return {}
    match = re.match(r"---\r?\n(.*?)\r?\n---\s*(\r?\n|$)", text, re.DOTALL)
    # Anchors can blow up a small text; no card's metadata needs them.
    if match is None or re.search(r"(^|[\s\[{,:-])[&*]\w", match[1]):
        return {}
    try:
        # Every scalar stays the text it is: no is Norwegian, and no tag makes anything else.
        metadata = yaml.load(match[1], Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return checked_metadata(metadata) if isinstance(metadata, dict) else {}


def checked_metadata(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the allow-listed keys whose values have the type and shape they should."""
    found: dict[str, Any] = {}
    for key, shape in _TEXTS:
        value = metadata.get(key)
        if isinstance(value, str) and shape.fullmatch(value) and value.lower() not in _NOTHING:
            found[key] = value
    languages = metadata.get("language")
    if isinstance(languages, str):
        languages = [languages]
    if isinstance(languages, list):
        kept = [text for text in languages if isinstance(text, str) and _PLAIN.fullmatch(text)]
        kept = [text for text in kept if text == "no" or text.lower() not in _NOTHING]
        if kept:
            found["language"] = kept[:_MAX_LANGUAGES]
    return found
