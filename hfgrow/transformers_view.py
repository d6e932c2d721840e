"""The tensors that transformers expects of a config, beside those that are stored."""

from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, VerificationError, foreign, printable
from hfgrow.loading import auto_model, transformers_config


def check_transformers_view(folder: Path, base: Path | None = None) -> int:
    """Build the model on the meta device and compare what it expects with what is stored.

    Args:
        folder: The grown model.
        base: What it grew from; where transformers refuses that too, the base is to blame.

    Returns:
        The number of stored tensors.

    Raises:
        VerificationError: transformers expects other names or shapes, or refuses the config.
        ModelError: It refuses the config of the base.
    """
    stored = {name: tensor.shape for name, tensor in read(LocalFolder(folder)).tensors.items()}
    try:
        with foreign(
            lambda said: VerificationError(f"transformers refuses the grown config: {said}")
        ):
            model = _built(folder)
    except VerificationError:
        if base is not None:
            with foreign(
                lambda said: ModelError(
                    f"config.json: transformers refuses it: {said}",
                    hint="correct the config of the base",
                )
            ):
                _built(base)
        raise
    # Tied parameters are one tensor under several names; any one of them has to be stored.
    shared: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared.setdefault(id(parameter), []).append(name)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    missing = [names[0] for names in shared.values() if not any(name in stored for name in names)]
    unexpected = [name for name in stored if name not in shapes]
    mismatched = [name for name in stored if name in shapes and shapes[name] != stored[name]]
    for fault, names in (
        ("expects and does not find", missing),
        ("does not expect", unexpected),
        ("expects in another shape", mismatched),
    ):
        if names:
            listed = ", ".join(printable(name) for name in sorted(names)[:3])
            raise VerificationError(f"transformers {fault} {len(names)} tensors: {listed}")
    return len(stored)


def _built(folder: Path) -> Any:
    """Return the model of a config, without numbers."""
    import torch

    quiet: Any = auto_model()
    with torch.device("meta"):
        model = quiet.from_config(transformers_config(folder), trust_remote_code=False)
    model.tie_weights()
    return model
