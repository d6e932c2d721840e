"""Weights as the Hub has them: safetensors files, an index where there are several."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

_MAX_SHARD_NBYTES = 50_000_000_000
_MODE = 0o666


def write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """Write tensors into a folder as a model's weights.

    Args:
        folder: Where to.
        tensors: By name, on the CPU, no two of which share memory.

    Returns:
        The names of the weight files.
    """
    from huggingface_hub import save_torch_state_dict

    with as_os_error():
        save_torch_state_dict(dict(tensors), folder, max_shard_size=_MAX_SHARD_NBYTES)
    umask = os.umask(0)
    os.umask(umask)
    names = sorted(path.name for path in folder.glob("*.safetensors*"))
    for name in names:
        # safetensors makes files that nobody else may read.
        (folder / name).chmod(_MODE & ~umask)
    return [name for name in names if name.endswith(".safetensors")]


@contextmanager
def as_os_error() -> Iterator[None]:
    """Let what the file system refuses be an OSError again; safetensors makes a text of it."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
