"""Hostile files, written byte by byte."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from tests.checkpoints import edit_json

Header = dict[str, Any]


def entry(
    dtype: object = "F32", shape: object = None, offsets: object = None, **more: object
) -> dict[str, object]:
    """Return one entry of a header: by default 4 numbers in 16 bytes."""
    return {
        "dtype": dtype,
        "shape": [4] if shape is None else shape,
        "data_offsets": [0, 16] if offsets is None else offsets,
        **more,
    }


def write_raw(
    path: Path,
    header: bytes | str | Mapping[str, Any],
    data: bytes = b"",
    length: int | None = None,
) -> Path:
    """Write a safetensors file as told, whether that makes sense or not.

    Args:
        path: The file.
        header: The header, as JSON or as it is.
        data: What follows the header.
        length: What the first 8 bytes claim, if that is not the truth.
    """
    raw = header if isinstance(header, bytes | str) else json.dumps(header)
    raw = raw.encode() if isinstance(raw, str) else raw
    claimed = len(raw) if length is None else length
    path.write_bytes(claimed.to_bytes(8, "little") + raw + data)
    return path


def read_raw(path: Path) -> tuple[Header, bytes]:
    """Return the header and the data of a safetensors file."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def rename_tensors(path: Path, names: Mapping[str, str]) -> None:
    """Change names in a header and leave the bytes."""
    header, data = read_raw(path)
    write_raw(path, {names.get(name, name): value for name, value in header.items()}, data)


def drop_tensors(path: Path, *names: str) -> None:
    """Write a file again without some of its tensors."""
    header, data = read_raw(path)
    rewrite(path, {k: v for k, v in header.items() if k not in names}, data)


def add_tensor(path: Path, name: str, shape: list[int], raw: bytes, dtype: str = "F32") -> None:
    """Append a tensor to a file."""
    header, data = read_raw(path)
    header[name] = entry(dtype, shape, [len(data), len(data) + len(raw)])
    write_raw(path, header, data + raw)


def rewrite(path: Path, header: Header, data: bytes) -> None:
    """Write tensors of a header one after the other, taking each from where the header says."""
    packed, chunks, end = dict(header), [], 0
    for name, value in header.items():
        if name == "__metadata__":
            continue
        begin, stop = value["data_offsets"]
        chunks.append(data[begin:stop])
        packed[name] = value | {"data_offsets": [end, end + stop - begin]}
        end += stop - begin
    write_raw(path, packed, b"".join(chunks))


def check(folder: Path) -> None:
    """Read a folder strictly."""
    read(LocalFolder(folder))


def edit_config(base: Path, **changes: Any) -> None:
    """Change keys of a folder's config.json; ... takes one away."""
    edit_json(base / "config.json", **changes)
