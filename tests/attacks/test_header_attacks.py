"""Group A: malformed safetensors files. Each is refused by name, soon, and in little memory.

Group C: a head that is tied to the embeddings, or should be, or is not there.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from tests.attacks.craft import (
    Header,
    add_tensor,
    drop_tensors,
    edit_config,
    entry,
    read_raw,
    write_raw,
)
from tests.attacks.refusal import check_refused, check_refused_in_little_memory, result_or_refusal
from tests.checkpoints import MakeCheckpoint, load, logits
from tests.program import call_hfgrow

WEIGHTS = "model.safetensors"
NORM = "model.norm.weight"


@pytest.fixture
def weights(base: Path) -> Path:
    return base / WEIGHTS


def edited(weights: Path, **changes: Any) -> None:
    """Change fields of the entry of the final norm."""
    header, data = read_raw(weights)
    header[NORM] = {**header[NORM], **changes}
    write_raw(weights, header, data)


@pytest.mark.case("A1", "A2", "A3", "A21")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", ("0 bytes",), id="A1-empty"),
        pytest.param(b"1234567", ("7 bytes",), id="A1-7-bytes"),
        pytest.param(bytes(8) + b"{}", ("claims 0 bytes", "has 10"), id="A2-zero"),
        pytest.param(b"\xff\x10" + bytes(6) + b"{}", ("claims 4351 bytes", "has 10"), id="A2-long"),
        pytest.param(b"\xff" * 8 + b"{}", ("18446744073709551615", "100 MB"), id="A2-u64-max"),
        pytest.param((100_000_001).to_bytes(8, "little"), ("100000001", "100 MB"), id="A3"),
        pytest.param(b"\x80\x04\x95" + bytes(20), ("Python pickle",), id="A21-pickle"),
        pytest.param(b"PK\x03\x04" + bytes(20), ("zip archive",), id="A21-zip"),
        pytest.param(b"GGUF" + bytes(20), ("GGUF",), id="A21-gguf"),
        pytest.param(b"<!DOCTYPE html><html>", ("HTML page",), id="A21-html"),
        pytest.param(b"<html><body></body></html>", ("HTML page",), id="A21-html-bare"),
        pytest.param(b"version https://git-lfs...", ("Git LFS pointer",), id="A21-lfs"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(20), ("HDF5",), id="A21-keras"),
    ],
)
def test_what_is_no_safetensors_file_is_called_by_its_name(
    base: Path, content: bytes, words: tuple[str, ...]
) -> None:
    (base / WEIGHTS).write_bytes(content)
    check_refused(base, WEIGHTS, *words)


@pytest.mark.case("A2")
@pytest.mark.parametrize("claimed", [1 << 40, (1 << 64) - 1], ids="A2-{}".format)
def test_a_claimed_length_allocates_nothing(base: Path, claimed: int) -> None:
    write_raw(base / WEIGHTS, "{}", length=claimed)
    check_refused_in_little_memory(base)


@pytest.mark.case("A4")
@pytest.mark.parametrize("part", range(16), ids="A4-{}/16".format)
def test_a_truncated_file_is_refused(base: Path, weights: Path, part: int) -> None:
    nbytes = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(nbytes * part // 16)
    check_refused(base, WEIGHTS)


@pytest.mark.case("A4")
def test_a_file_that_lacks_its_last_byte_is_refused_with_both_sizes(
    base: Path, weights: Path
) -> None:
    nbytes = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(nbytes - 1)
    check_refused(base, WEIGHTS, "truncated", str(nbytes), str(nbytes - 1))


@pytest.mark.case("A5")
def test_bytes_after_the_last_tensor_are_refused(base: Path, weights: Path) -> None:
    with weights.open("ab") as file:
        file.write(b"evil")
    check_refused(base, WEIGHTS, "4 bytes after")


@pytest.mark.case("A6", "A7", "A8", "A9", "A10", "A11", "A14", "A15", "A19")
@pytest.mark.parametrize(
    ("header", "nbytes", "words"),
    [
        pytest.param({"a": entry(offsets=[8, 24])}, 24, ("a", "hole"), id="A6-first"),
        pytest.param({"a": entry(), "b": entry(offsets=[20, 36])}, 36, ("b", "hole"), id="A6"),
        pytest.param({"a": entry(), "b": entry(offsets=[8, 24])}, 24, ("b", "overlap"), id="A7"),
        pytest.param({"a": entry(), "b": entry()}, 16, ("overlap",), id="A7-alias"),
        pytest.param({"a": entry(offsets=[-16, 0])}, 16, ("a", "data_offsets"), id="A8-negative"),
        pytest.param({"a": entry(offsets=[16, 0])}, 16, ("a", "data_offsets"), id="A8-reversed"),
        pytest.param({"a": entry(offsets=[0.0, 16.0])}, 16, ("data_offsets",), id="A8-float"),
        pytest.param({"a": entry(offsets=[False, 16])}, 16, ("data_offsets",), id="A8-bool"),
        pytest.param({"a": entry(offsets=[0, 1 << 70])}, 16, ("data_offsets",), id="A8-huge"),
        pytest.param({"a": entry(offsets=[0])}, 16, ("data_offsets",), id="A8-one"),
        pytest.param({"a": entry(offsets="0:16")}, 16, ("data_offsets",), id="A8-text"),
        pytest.param({"a": entry(shape=[-4])}, 16, ("a", "shape", "-4"), id="A8-shape"),
        pytest.param({"a": entry(shape=[4.0])}, 16, ("a", "shape"), id="A8-shape-float"),
        pytest.param({"a": entry(shape=4)}, 16, ("a", "shape"), id="A8-shape-number"),
        pytest.param(
            {"a": entry(shape=[4194305, 4194305, 211106198978564])}, 16, ("takes",), id="A9"
        ),
        pytest.param({"a": entry(shape=[1 << 47] * 8)}, 16, ("takes",), id="A9-rank-8"),
        pytest.param({"a": entry(shape=[5])}, 16, ("a", "20 bytes", "has 16"), id="A10"),
        pytest.param({"a": entry("Q4_K")}, 16, ("Q4_K", "BF16, F16, F32"), id="A11"),
        pytest.param({"a": entry("f32")}, 16, ("'f32'", "F32"), id="A11-case"),
        pytest.param({"a": entry(["F32"])}, 16, ("dtype", "F32"), id="A11-list"),
        pytest.param({"a": entry({"F32": 1})}, 16, ("dtype",), id="A11-object"),
        pytest.param({"a": entry(None)}, 16, ("dtype",), id="A11-null"),
        pytest.param({"a": entry(extra=1)}, 16, ("a", "exactly the fields"), id="A15-field"),
        pytest.param({"a": {"dtype": "F32"}}, 16, ("a", "exactly the fields"), id="A15-missing"),
        pytest.param({"a": [1]}, 16, ("a", "exactly the fields"), id="A15-list"),
        pytest.param({"__metadata__": {"a": 1}}, 0, ("__metadata__",), id="A14-number"),
        pytest.param({"__metadata__": ["a"]}, 0, ("__metadata__",), id="A14-list"),
        pytest.param({}, 0, ("no tensors",), id="A19-no-tensors"),
        pytest.param({"a": entry(shape=[0], offsets=[0, 0])}, 0, ("shape",), id="A19-no-numbers"),
        pytest.param({"a": entry(shape=[1] * 200)}, 16, ("shape",), id="A19-rank-200"),
    ],
)
def test_a_header_that_lies_is_refused(
    base: Path, header: Header, nbytes: int, words: tuple[str, ...]
) -> None:
    write_raw(base / WEIGHTS, header, bytes(nbytes))
    check_refused(base, *words)


@pytest.mark.case("A12")
@pytest.mark.parametrize(
    "dtype", ["F8_E4M3", "F8_E5M2", "F4", "I8", "U8", "BOOL"], ids="A12-{}".format
)
def test_quantised_weights_are_called_quantised(base: Path, weights: Path, dtype: str) -> None:
    edited(weights, dtype=dtype)
    check_refused(base, WEIGHTS, NORM, dtype, "quantised")


@pytest.mark.case("A13", "A14", "A15", "A16", "A17")
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param(
            '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
            '"a":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}',
            ("'a'", "twice"),
            id="A13",
        ),
        pytest.param('{"__metadata__":{},"__metadata__":{}}', ("twice",), id="A14-twice"),
        pytest.param('{"a":{"dtype":"F32","dtype":"F32"}}', ("'dtype'", "twice"), id="A13-field"),
        pytest.param("  {}", ("must start with",), id="A15-spaces"),
        pytest.param("[]", ("must start with",), id="A17-list"),
        pytest.param("{}" + "\0" * 8, ("not JSON",), id="A17-nul"),
        pytest.param(b'{"\xff\xfe": 1}', ("not UTF-8",), id="A17-utf8"),
        pytest.param("{" * 8, ("not JSON",), id="A17-json"),
        pytest.param('{"a": NaN}', ("NaN",), id="A17-nan"),
        pytest.param('{"a":' + "[" * 200_000, ("nested",), id="A16"),
        pytest.param('{"a":' * 200_000, ("nested",), id="A16-objects"),
        pytest.param('{"a":' + "9" * 100_000 + "}", ("not JSON",), id="A16-digits"),
    ],
)
def test_a_header_that_is_no_plain_json_is_refused(
    base: Path, raw: bytes | str, words: tuple[str, ...]
) -> None:
    write_raw(base / WEIGHTS, raw, bytes(16))
    check_refused(base, WEIGHTS, *words)


@pytest.mark.case("A18")
@pytest.mark.parametrize(
    "name",
    ["", "../../etc/x", "\x1b[31mred\x1b[0m", "[/foo]", "n" * 1_000_000, "\u202egnp.exe", "\ud800"],
    ids=["A18-empty", "A18-path", "A18-ansi", "A18-markup", "A18-long", "A18-rtl", "A18-surrogate"],
)
def test_a_strange_name_is_refused_and_shown_without_harm(
    base: Path, weights: Path, name: str
) -> None:
    add_tensor(weights, name, [4], bytes(16))
    message = check_refused(base, WEIGHTS)
    assert not {"\x1b", "\u202e"} & set(message)


@pytest.mark.case("A19")
def test_a_tensor_of_rank_0_is_not_taken_for_a_weight(base: Path, weights: Path) -> None:
    add_tensor(weights, "model.scale", [], bytes(4))
    check_refused(base, WEIGHTS, "model.scale", "no tensor of a llama")


@pytest.mark.case("A26")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_are_refused_or_change_no_header(base: Path, data: st.DataObject) -> None:
    """A26: never a crash, and 0 only where the header says what it said."""
    weights = base / WEIGHTS
    whole = weights.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        # Most of the flips hit the header; the rest is weights, which may be anything.
        last = end if data.draw(st.integers(0, 9)) else len(whole) - 1
        damaged[data.draw(st.integers(0, last))] ^= data.draw(st.integers(1, 255))
    weights.write_bytes(damaged)
    plan, message = result_or_refusal(lambda: read(LocalFolder(base)))
    weights.write_bytes(whole)
    assert message.isprintable()
    if plan is not None:
        header = json.loads(whole[8:end])
        del header["__metadata__"]
        found = {name: [*tensor.shape] for name, tensor in plan.tensors.items()}
        assert found == {name: value["shape"] for name, value in header.items()}


HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@pytest.mark.case("C11")
def test_a_head_that_differs_although_tied_is_kept_and_the_flag_corrected(base: Path) -> None:
    edit_config(base, tie_word_embeddings=True)
    plan = read(LocalFolder(base))
    assert HEAD in plan.tensors
    assert plan.config["tie_word_embeddings"] is False
    assert any("differs from the embeddings" in note for note in plan.notes)


@pytest.mark.case("C12")
def test_a_head_that_equals_the_embeddings_it_is_tied_to_is_stored_once(
    make_checkpoint: MakeCheckpoint, base: Path, tmp_path: Path
) -> None:
    weights = base / "model.safetensors"
    header, data = read_raw(weights)
    (head, _), (embeddings, stop) = header[HEAD]["data_offsets"], header[EMBEDDINGS]["data_offsets"]
    same = data[embeddings:stop]
    write_raw(weights, header, data[:head] + same + data[head + len(same) :])
    edit_config(base, tie_word_embeddings=True)
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    assert HEAD not in read_raw(tmp_path / "out" / "model.safetensors")[0]
    model, report = load(tmp_path / "out")
    assert not any(report[key] for key in report if key.endswith("_keys"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert logits(model).isfinite().all()


@pytest.mark.case("C13")
def test_an_untied_model_without_a_head_is_refused(base: Path) -> None:
    """C13: transformers would make one at random."""
    drop_tensors(base / "model.safetensors", HEAD)
    check_refused(base, HEAD, "missing", "tie_word_embeddings")
