"""Headers: what is written is read back, by us and by the safetensors library."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.header import BLOCK_NBYTES, build_header, parse_header, read_header
from hfgrow.plan.tensors import DTYPE_NBYTES
from tests.attacks.craft import entry, write_raw
from tests.attacks.refusal import result_or_refusal
from tests.checkpoints import MakeCheckpoint

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SHAPES = st.lists(st.integers(1, 9), max_size=4).map(tuple)
TENSORS = st.dictionaries(
    NAMES.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPE_NBYTES)), SHAPES),
    max_size=6,
)


def rows(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(name, dtype, shape) for name, (dtype, shape) in tensors.items()]


@given(tensors=TENSORS, first_offset=st.integers(0, 1 << 40))
def test_a_header_is_read_back_as_it_was_built(
    tensors: dict[str, tuple[str, tuple[int, ...]]], first_offset: int
) -> None:
    raw = build_header(rows(tensors), metadata={"format": "pt"}, first_offset=first_offset)
    data_nbytes = sum(prod(shape) * DTYPE_NBYTES[dtype] for dtype, shape in tensors.values())
    found = parse_header(raw[8:], len(raw) + data_nbytes, "x.safetensors")
    assert {name: (e.dtype, e.shape) for name, e in found.items()} == tensors
    assert sum(e.nbytes for e in found.values()) == data_nbytes
    assert [e.offset for e in found.values()] == sorted(e.offset for e in found.values())


@given(tensors=TENSORS, first_offset=st.integers(0, 1 << 40))
def test_the_data_start_at_the_offset_of_their_source_modulo_a_block(
    tensors: dict[str, tuple[str, tuple[int, ...]]], first_offset: int
) -> None:
    raw = build_header(rows(tensors), metadata={}, first_offset=first_offset)
    assert int.from_bytes(raw[:8], "little") == len(raw) - 8
    assert len(raw) % 8 == 0
    if first_offset % 8 == 0:
        assert (len(raw) - first_offset) % BLOCK_NBYTES == 0


@given(tensors=TENSORS)
def test_the_safetensors_library_reads_a_built_header(
    tensors: dict[str, tuple[str, tuple[int, ...]]],
) -> None:
    import safetensors

    deserialize: Any = safetensors.deserialize
    raw = build_header(rows(tensors), metadata={"format": "pt"}, first_offset=1234)
    data = bytes(sum(prod(shape) * DTYPE_NBYTES[dtype] for dtype, shape in tensors.values()))
    found = {name: (item["dtype"], tuple(item["shape"])) for name, item in deserialize(raw + data)}
    assert found == tensors


@given(data=st.data())
def test_a_flipped_byte_never_crashes_the_parser(data: st.DataObject) -> None:
    built = build_header([("a", "F32", (2, 3)), ("b", "BF16", (5,))], metadata={"format": "pt"})
    raw = bytearray(built[8:])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    found, message = result_or_refusal(
        lambda: parse_header(bytes(raw), len(built) + 34, "x.safetensors")
    )
    if found is None:
        assert "x.safetensors" in message
    else:
        # Names, metadata and the kind of blank may change unseen here; sizes may not.
        assert sorted(e.nbytes for e in found.values()) == [10, 24]


def test_the_header_of_a_saved_model_is_read(make_checkpoint: MakeCheckpoint) -> None:
    folder = make_checkpoint()
    found = read_header(LocalFolder(folder), "model.safetensors")
    assert found["model.norm.weight"].shape == (32,)
    assert sum(e.nbytes for e in found.values()) < (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    raw = json.dumps({"a": entry()}).ljust(length)
    write_raw(tmp_path / "x.safetensors", raw, bytes(16))
    assert (tmp_path / "x.safetensors").read_bytes()[:2] == length.to_bytes(2, "little")
    assert read_header(LocalFolder(tmp_path), "x.safetensors")["a"].nbytes == 16


def test_tensors_may_stand_in_any_order(tmp_path: Path) -> None:
    header = {"b": entry(offsets=[16, 32]), "a": entry()}
    write_raw(tmp_path / "x.safetensors", header, bytes(32))
    assert list(read_header(LocalFolder(tmp_path), "x.safetensors")) == ["a", "b"]


@pytest.mark.parametrize("metadata", [{"format": "tf"}, {}, None], ids=["tf", "empty", "absent"])
def test_the_format_of_the_metadata_does_not_matter(tmp_path: Path, metadata: object) -> None:
    header = {"a": entry()} | ({} if metadata is None else {"__metadata__": metadata})
    write_raw(tmp_path / "x.safetensors", header, bytes(16))
    assert list(read_header(LocalFolder(tmp_path), "x.safetensors")) == ["a"]
