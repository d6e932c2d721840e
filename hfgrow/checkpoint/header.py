"""The header of a safetensors file: parsed strictly, written so that blocks can be shared.

A file is an 8-byte little-endian length, a JSON object of that length, and the tensors' bytes
without holes: `{"name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, ...}`, the
offsets counted from the end of the header, `__metadata__` a string-to-string map.

Source: the format section of https://github.com/huggingface/safetensors

The index of a checkpoint in several files, checked before a shard is opened.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from hfgrow.checkpoint.files import INDEX, SINGLE, WEIGHTS_NAME, Files
from hfgrow.checkpoint.foreign import refuse_folder
from hfgrow.checkpoint.strict import is_int, parse_json_object, read_json_object
from hfgrow.errors import ModelError, printable
from hfgrow.plan.tensors import DTYPE_NBYTES

MAX_HEADER_NBYTES = 100_000_000
BLOCK_NBYTES = 4096
_MAX_RANK = 8
# safetensors stores these too; weights in them are quantised, or no weights.
_QUANTISED = frozenset(
    ("F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0", "BOOL", "C64")
) | frozenset(f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64))
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint with pickle inside"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF", "an HDF5 file, such as a Keras checkpoint"),
    (b"<!DO", "an HTML page, not a download"),
    (b"<!do", "an HTML page, not a download"),
    (b"<htm", "an HTML page, not a download"),
    (b"version https", "a Git LFS pointer; the file itself was not downloaded (git lfs pull)"),
    (b"\x93NUMPY", "a NumPy array"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a header: dtype, shape, and its bytes counted from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_header(files: Files, name: str) -> dict[str, Entry]:
    """Read the header of a safetensors file; no weight is read.

    Args:
        name: The file's name.

    Returns:
        Tensor name -> entry, in the order of the bytes in the file.

    Raises:
        ModelError: The file is no safetensors file, or breaks the format in any way.
    """
    nbytes = files.nbytes(name)
    shown = printable(name)
    start = files.read(name, 0, 16)
    # The length of a true header can begin with the bytes of a pickle: 1152 is 80 04.
    if start[8:9] != b"{":
        for magic, what in _MAGIC:
            if start.startswith(magic):
                raise ModelError(f"{shown} is {what}, not a safetensors file")
    if len(start) < 8:
        raise ModelError(f"{shown} is not a safetensors file ({nbytes} bytes)")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_NBYTES:
        raise ModelError(
            f"{shown}: the header claims {length} bytes, above the limit of 100 MB; "
            "this is not a safetensors file"
        )
    if length < 2 or 8 + length > nbytes:
        raise ModelError(
            f"{shown}: the header claims {length} bytes, but the file has {nbytes}",
            hint="the file is truncated or not safetensors; download it again",
        )
    raw = files.read(name, 8, length)
    if len(raw) != length:
        raise ModelError(f"{shown}: the file ended inside its header")
    if not raw.startswith(b"{"):
        raise ModelError(f"{shown}: the header must start with '{{', as the format demands")
    return parse_header(raw, nbytes, name)


def parse_header(raw: bytes, file_nbytes: int, name: str) -> dict[str, Entry]:
    """Parse the JSON of a header and check it against the size of its file.

    Raises:
        ModelError: A field is missing, unknown or of the wrong type, a dtype is not a float's, or
            the byte ranges are not exactly the file: in order, no hole, no overlap, nothing after.
    """
    shown = printable(name)
    header = parse_json_object(raw, name)
    _check_metadata(header.pop("__metadata__", None), shown)
    data_start = 8 + len(raw)
    entries = [(key, _entry(shown, key, value, data_start)) for key, value in header.items()]
    entries.sort(key=lambda item: (item[1].offset, item[1].nbytes))
    end = data_start
    for key, entry in entries:
        if entry.offset != end:
            fault = "overlaps the tensor before it" if entry.offset < end else "leaves a hole"
            raise ModelError(
                f"{shown}: {printable(key)} {fault} (at byte {entry.offset}, expected {end})",
                hint="tied tensors are stored once; save the model again with save_pretrained",
            )
        end += entry.nbytes
    if end > file_nbytes:
        raise ModelError(
            f"{shown} is truncated: expected {end} bytes, has {file_nbytes}",
            hint="download the file again",
        )
    if end < file_nbytes:
        raise ModelError(f"{shown} has {file_nbytes - end} bytes after its last tensor")
    return dict(entries)


def _check_metadata(metadata: object, shown: str) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelError(f"{shown}: __metadata__ must map strings to strings")


def _entry(shown: str, key: str, value: Any, data_start: int) -> Entry:
    where = f"{shown}: {printable(key)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"{where} must have exactly the fields dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_NBYTES:
        if isinstance(dtype, str) and dtype in _QUANTISED:
            raise ModelError(
                f"{where} has dtype {dtype}: quantised or integer weights cannot be grown",
                hint="grow the unquantised base and quantise the result",
            )
        raise ModelError(
            f"{where} has the unknown dtype {printable(repr(dtype))}; "
            f"supported: {', '.join(DTYPE_NBYTES)}"
        )
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_RANK
        or not all(is_int(size) and 0 <= size < 1 << 48 for size in shape)
    ):
        raise ModelError(f"{where} has no valid shape: {printable(repr(shape))}")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(is_int(offset) and 0 <= offset < 1 << 63 for offset in offsets)
        or offsets[0] > offsets[1]
    ):
        raise ModelError(f"{where} has no valid data_offsets: {printable(repr(offsets))}")
    nbytes = offsets[1] - offsets[0]
    expected = prod(shape) * DTYPE_NBYTES[dtype]
    if nbytes != expected:
        raise ModelError(
            f"{where}: shape {printable(shape)} in {dtype} takes {printable(expected, 30)} bytes, "
            f"but its range has {nbytes}"
        )
    return Entry(dtype, tuple(shape), data_start + offsets[0], nbytes)


def build_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    *,
    metadata: Mapping[str, str],
    first_offset: int = 0,
    block_nbytes: int = BLOCK_NBYTES,
) -> bytes:
    """Return the length and header of a file, padded with spaces.

    Args:
        tensors: (name, dtype, shape) in the order of their bytes.
        metadata: What `__metadata__` says.
        first_offset: Where the first tensor's bytes lie in the file they are copied from. The
            padding makes the data start at the same place modulo `block_nbytes`, so that a file
            system can share the blocks instead of copying them.
        block_nbytes: The size of such a block, a multiple of 8.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + prod(shape) * DTYPE_NBYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    # Readers map the file and want aligned tensors: congruence gives way to an 8-byte alignment.
    modulus, wanted = (block_nbytes, first_offset) if first_offset % 8 == 0 else (8, 0)
    raw += b" " * ((wanted - 8 - len(raw)) % modulus)
    return len(raw).to_bytes(8, "little") + raw


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
        refuse_folder(files)
        raise ModelError(f"there is neither {SINGLE} nor {INDEX} in {files.label}")
    return None


def _checked(index: Mapping[str, object], names: set[str]) -> Index:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{INDEX} has no weight_map")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not WEIGHTS_NAME.fullmatch(shard):
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
