"""The names of tensors without what wrappers put before them.

torch.compile, data parallelism, FSDP, activation checkpointing, PEFT and the frames of multimodal
models put words of their own into the names; a backbone saved alone lacks its `model.`.
"""

import re
from collections.abc import Collection, Mapping

from hfgrow.errors import ModelError, printable

_WRAPPERS = frozenset(
    {
        "_checkpoint_wrapped_module",
        "_forward_module",
        "_fsdp_wrapped_module",
        "_orig_mod",
        "module",
    }
)
_BACKBONE = "model."
_EMBEDDINGS, _HEAD = "embed_tokens.weight", "lm_head.weight"
# What stands before the first number of a layer.
_BEFORE_LAYERS = re.compile(r"((?:[A-Za-z_]\w*\.)*?)layers\.\d+\.", re.ASCII)


def usual_names(names: Collection[str]) -> dict[str, str]:
    """Return every name as the class of the model has it; what is not understood keeps its name.

    Args:
        names: As they are stored.

    Raises:
        ModelError: Two of them are one.
    """
    bare = {name: _unwrapped(name) for name in names}
    prefix = _prefix_of_backbone(bare.values())
    usual: dict[str, str] = {}
    for name, text in bare.items():
        usual[name] = _in_the_model(text, prefix) if prefix != _BACKBONE else text
    found: dict[str, str] = {}
    for name, text in usual.items():
        if (other := found.setdefault(text, name)) != name:
            raise ModelError(
                f"{printable(other)} and {printable(name)} are both {printable(text)}",
                hint="save the model again, unwrapped: with its own save_pretrained",
            )
    return usual


def told(names: Mapping[str, str]) -> list[str]:
    """Return a note about names that were stored otherwise.

    Args:
        names: From `usual_names`.
    """
    changed = {name: text for name, text in names.items() if name != text}
    if not changed:
        return []
    name, text = next(iter(changed.items()))
    return [
        f"{len(changed)} of {len(names)} tensors have names of a wrapper or of the backbone alone: "
        f"{printable(name)} is read as {printable(text)}"
    ]


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefix_of_backbone(names: Collection[str]) -> str:
    """Return what stands before `layers.0.` in the names of the text model."""
    found = {match[1] for name in names if (match := _BEFORE_LAYERS.match(name))}
    with_embeddings = {prefix for prefix in found if f"{prefix}{_EMBEDDINGS}" in names}
    prefixes = with_embeddings or found
    return prefixes.pop() if len(prefixes) == 1 else _BACKBONE


def _in_the_model(name: str, prefix: str) -> str:
    """Return a name with the prefix of the class instead of the one found."""
    if name == _HEAD or name.endswith(f".{_HEAD}"):
        return _HEAD
    return _BACKBONE + name.removeprefix(prefix) if name.startswith(prefix) else name
