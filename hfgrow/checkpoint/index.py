"""The index of a checkpoint in several files, checked before a shard is opened."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hfgrow.checkpoint.files import Files
from hfgrow.checkpoint.strictjson import read_json_object
from hfgrow.errors import ModelError, printable
from hfgrow.names import INDEX, SINGLE

_SHARD = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
_FOREIGN = {
    ".bin": "PyTorch pickle files",
    ".pt": "PyTorch pickle files",
    ".pth": "PyTorch pickle files",
    ".ckpt": "PyTorch pickle files",
    ".gguf": "GGUF files",
    ".h5": "Keras files",
    ".msgpack": "Flax files",
    ".npz": "NumPy files",
}


@dataclass(frozen=True, slots=True)
class Index:
    """Which file holds which tensor.

    Attributes:
        weight_map: Tensor name -> file name, each a plain name of a file that is there.
        total_size: What the index says all tensors take, in bytes, whatever type that has.
    """

    weight_map: Mapping[str, str]
    total_size: object

    def notes(self, nbytes: int) -> list[str]:
        """Return what the user should know of the size that the index claims.

        Args:
            nbytes: What the tensors take by their headers.
        """
        if self.total_size == nbytes and type(self.total_size) is int:
            return []
        said = "no total_size" if self.total_size is None else printable(repr(self.total_size), 30)
        return [f"{INDEX} says {said}, its tensors take {nbytes} bytes; the headers count"]


def read_index(files: Files) -> Index | None:
    """Return the checked index, or None for a checkpoint of one file.

    Raises:
        ModelError: There are no weights in safetensors, or the index is none, names what is no
            file of the folder, or stands beside a single file.
    """
    names = set(files.names())
    if INDEX in names:
        index = _checked(read_json_object(files, INDEX), names)
        if SINGLE in names and set(index.weight_map.values()) != {SINGLE}:
            raise ModelError(
                f"{files.label} has both {SINGLE} and {INDEX}, which may be two different models",
                hint="remove the one that does not belong there",
            )
        return index
    if SINGLE not in names:
        _refuse_without_weights(files, names)
    return None


def _refuse_without_weights(files: Files, names: set[str]) -> None:
    if "adapter_config.json" in names:
        raise ModelError(
            f"{files.label} holds a LoRA adapter, not a model",
            hint="merge it into its base first, then save_pretrained()",
        )
    for name in sorted(names):
        for suffix, what in _FOREIGN.items():
            if name.endswith(suffix):
                raise ModelError(
                    f"{files.label} holds only {what} ({printable(name)}), no safetensors",
                    hint="convert it: load it where you trust it, then save_pretrained()",
                )
    raise ModelError(f"there is neither {SINGLE} nor {INDEX} in {files.label}")


def _checked(index: Mapping[str, object], names: set[str]) -> Index:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{INDEX} has no weight_map")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise ModelError(
                f"{INDEX}: {printable(tensor)} lies in {printable(repr(shard))}, which points "
                "outside the model folder or is no file name"
            )
    missing = sorted(set(weight_map.values()) - names)
    if missing:
        listed = ", ".join(printable(name) for name in missing[:3])
        raise ModelError(
            f"{len(missing)} of {len(set(weight_map.values()))} shards are missing: {listed}",
            hint="download the model again",
        )
    metadata = index.get("metadata")
    return Index(weight_map, metadata.get("total_size") if isinstance(metadata, dict) else None)
