"""Write learned maps to the file that lies beside a grown model, named by its hash."""

from hashlib import sha256
from pathlib import Path

from torch import Tensor

from hfgrow.learned_maps import maps_name


def write_maps(maps: dict[str, Tensor], folder: Path) -> str:
    """Write maps to a file of a folder and return its name; equal maps get equal bytes.

    Args:
        maps: Every map by name, float32 on the CPU.
        folder: Where to write.
    """
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in maps.items()})
    name = maps_name(sha256(content).hexdigest())
    (folder / name).write_bytes(content)
    return name
