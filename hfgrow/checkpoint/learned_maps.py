"""The file of learned maps beside a grown model: written, opened, and named by its hash."""

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from hfgrow.checkpoint.files import LEARNED_MAPS, LocalFolder, file_stamp, hash_file, open_regular
from hfgrow.checkpoint.header import read_header
from hfgrow.errors import ModelError, UsageError, command, printable
from hfgrow.plan.plan import SourceFile
from hfgrow.plan.tensors import Stored

if TYPE_CHECKING:
    from torch import Tensor
from hfgrow.plan.operators.learn import DTYPE, Shapes


def maps_name(digest: str) -> str:
    """Return the name of a file of maps with a sha256."""
    return f"learned_maps-{digest[:32]}.safetensors"


def is_maps_name(name: str) -> bool:
    """Say whether a name is that of a file of maps."""
    return LEARNED_MAPS.fullmatch(name) is not None


def open_maps(
    folder: Path | None, name: str | None, shapes: Shapes
) -> tuple[dict[str, Stored], Path, SourceFile]:
    """Return where each map lies in a file, the file, and its size and stamp.

    Args:
        name: The file's name.
        shapes: The maps that it must hold.

    Raises:
        UsageError: No file was named.
        ModelError: It is not there, is another file, or holds other maps.
    """
    if folder is None or name is None:
        raise UsageError(
            "a learned growth needs the file of its maps", hint=command("learn MODEL", data="TEXT")
        )
    if not is_maps_name(name):
        raise ModelError(f"{printable(name)} is not the name of a file of learned maps")
    path = folder.absolute() / name
    if not path.is_file():
        raise ModelError(
            f"{name} does not lie in {printable(folder, 200)}: the learned maps, without which "
            "the growth cannot be made again",
            hint="copy it from where the model was grown, or from its repository",
        )
    if maps_name(hash_file(path)) != name:
        raise ModelError(f"{name} was changed: its sha256 does not begin as its name says")
    files = LocalFolder(path.parent)
    found = read_header(files, name)
    if {key: (entry.dtype, entry.shape) for key, entry in found.items()} != {
        key: (DTYPE, shape) for key, shape in shapes.items()
    }:
        raise ModelError(
            f"{name} holds {len(found)} maps that are not those of this growth",
            hint="it belongs to another base, or to other targets",
        )
    maps = {
        key: Stored(str(path), key, entry.offset, entry.shape, entry.dtype)
        for key, entry in found.items()
    }
    descriptor = open_regular(path)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return maps, path, SourceFile(status.st_size, file_stamp(status))


def write_maps(maps: "dict[str, Tensor]", folder: Path) -> str:
    """Write maps to a file of a folder and return its name; equal maps get equal bytes.

    Args:
        maps: Every map by name, float32 on the CPU.
    """
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in maps.items()})
    name = maps_name(sha256(content).hexdigest())
    (folder / name).write_bytes(content)
    return name
