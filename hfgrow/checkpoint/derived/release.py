"""Whether a config was written by a newer transformers for a model that this one does not have.

transformers keeps keys that its class does not know and ignores them, so that every comparison
with its own model would compare the wrong model with itself.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hfgrow.checkpoint.derived.skeleton import Skeleton, skeleton_of
from hfgrow.errors import ModelError, argument, printable
from hfgrow.plan.elsewhere import OLDER_KEYS

# What trainers leave in a config, and no model is built by.
_NOT_OF_THE_MODEL = ("pretraining_tp", "unsloth_")


def check_release(config: Mapping[str, Any]) -> None:
    """Refuse settings of a newer transformers that the installed one would ignore.

    Args:
        config: config.json of a derived family.

    Raises:
        ModelError: It has such a key.
    """
    from transformers import __version__

    written = config.get("transformers_version")
    if not isinstance(written, str) or not _is_newer(written, __version__):
        return
    if key := next(_ignored(skeleton_of(config), config), None):
        raise ModelError(
            f"config.json: {printable(key)} is unknown to the installed transformers "
            f"{__version__}, which would ignore it; the config was written by "
            f"{printable(written)}",
            hint=f"pip install -U transformers; {argument('untested')} grows the model without it",
        )


def _is_newer(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one) > Version(other)
    except InvalidVersion:
        return False


def _ignored(skeleton: Skeleton, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that transformers only kept, of the whole and of the part with the layers."""
    yield from _only_kept(skeleton.config, config)
    for key in skeleton.inside:
        config = config.get(key) or {}
    if skeleton.inside:
        yield from (".".join((*skeleton.inside, key)) for key in _only_kept(skeleton.text, config))


def _only_kept(loaded: Any, settings: Mapping[str, Any]) -> Iterator[str]:
    try:
        known = set(dir(type(loaded)()))
    except Exception:  # a class that cannot be made without settings
        known = set(dir(type(loaded)))
    for key, value in settings.items():
        # What a class reads under an older name it takes out.
        is_kept = key in vars(loaded) and key not in known | OLDER_KEYS
        if is_kept and value is not None and not key.startswith(("_", *_NOT_OF_THE_MODEL)):
            yield key
