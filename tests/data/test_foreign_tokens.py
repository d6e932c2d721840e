"""Tokens that others wrote, read as they are: Megatron-LM, datatrove, columns of token ids."""

import json
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfgrow.data.data_files import MEGATRON, NANOSET, DataFile
from hfgrow.data.foreign_tokens import read_tokens
from hfgrow.data.prepare import documents_of, identify, prepare, size_of
from hfgrow.data.sources import TextSource, named_source, text_files_of
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.errors import TrainingError, UsageError
from tests.data.corpora import (
    VOCAB_SIZE,
    check_refused,
    documents,
    expected,
    prepared,
    story,
    write_rows,
    write_stories,
)
from tests.program import call_hfgrow

TEXTS = [story(i, 20) for i in range(5)]
CODES = {"<u2": 8, "<i4": 4, "<i8": 5}


def write_megatron(
    path: Path,
    tokens: Sequence[Sequence[int]],
    *,
    dtype: str = "<u2",
    first_sequences: Sequence[int] | None = None,
) -> Path:
    """Write sequences as Megatron does, each a document if nothing is said; return the index."""
    itemsize = np.dtype(dtype).itemsize
    sizes = [len(one) for one in tokens]
    pointers = np.cumsum([0, *sizes[:-1]]) * itemsize
    entries = range(len(sizes) + 1) if first_sequences is None else first_sequences
    path.with_suffix(".bin").write_bytes(b"".join(np.array(t, dtype).tobytes() for t in tokens))
    path.write_bytes(
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, CODES[dtype], len(sizes), len(entries))
        + np.array(sizes, "<i4").tobytes()
        + np.array(pointers, "<i8").tobytes()
        + np.array(entries, "<i8").tobytes()
    )
    return path


def write_nanoset(path: Path, tokens: Sequence[Sequence[int]], *, dtype: str = "<u2") -> Path:
    path.write_bytes(b"".join(np.array(one, dtype).tobytes() for one in tokens))
    ends = np.cumsum([len(one) for one in tokens])
    path.with_name(f"{path.name}.index").write_bytes(ends.astype("<u8").tobytes())
    return path


@pytest.fixture(scope="module")
def tokens(encoder: TextTokenizer) -> list[list[int]]:
    """What this program makes of `TEXTS`."""
    return expected(encoder, *TEXTS)


def changed(path: Path, at: int, format_: str, number: int) -> Path:
    raw = bytearray(path.read_bytes())
    struct.pack_into(format_, raw, at, number)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("dtype", CODES)
def test_documents_of_megatron_are_those_of_its_index(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]], dtype: str
) -> None:
    path = write_megatron(tmp_path / "a.idx", tokens, dtype=dtype)
    assert documents(prepared(path, tmp_path / "out", encoder)) == tokens


def test_a_document_of_megatron_may_have_several_sequences(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    """An empty one is left out, as a blank text is, and counted."""
    path = write_megatron(tmp_path / "a.idx", tokens, first_sequences=[0, 2, 2, 5])
    files = prepared(path, tmp_path / "out", encoder)
    assert documents(files) == [[*tokens[0], *tokens[1]], [n for t in tokens[2:] for n in t]]
    assert files.sources[0].num_blank == 1


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_documents_of_datatrove_are_those_of_its_index(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]], dtype: str
) -> None:
    path = write_nanoset(tmp_path / "a.ds", tokens, dtype=dtype)
    itemsize = np.dtype(dtype).itemsize
    path.with_name("a.ds.metadata").write_text(f"some/tokenizer|{itemsize}\n9\n9 T")
    assert documents(prepared(path, tmp_path / "out", encoder)) == tokens


def test_a_column_of_token_ids_is_read_as_tokens(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"input_ids": ids} for ids in tokens])
    files = prepared(path, tmp_path / "out", encoder, text_column="input_ids")
    assert documents(files) == tokens


def test_a_column_of_token_ids_in_parquet_is_read_as_tokens(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    pytest.importorskip("datasets")
    arrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"input_ids": tokens, "length": [1] * len(tokens)}), path)
    files = prepared(path, tmp_path / "out", encoder, text_column="input_ids")
    assert documents(files) == tokens


def test_tokens_have_the_bytes_and_hashes_of_their_text(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    """So bits per byte compare, and text in both training and validation is found."""
    rows = write_rows(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    of_text = prepared(rows, tmp_path / "text", encoder)
    path = write_megatron(tmp_path / "a.idx", tokens)
    of_tokens = prepared(path, tmp_path / "tokens", encoder)
    assert of_tokens.nbytes.tolist() == of_text.nbytes.tolist()
    assert of_tokens.hashes.tolist() == of_text.hashes.tolist()
    assert of_tokens.sources[0].num_bytes == sum(len(text.encode()) for text in TEXTS)
    assert of_tokens.sketch(0).hashes.tolist() == of_text.sketch(0).hashes.tolist()


def test_tokens_are_identified_by_the_content_of_all_their_files(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    """Either file of a pair that changes makes other tokens; the folder they lie in does not."""
    path = write_megatron(tmp_path / "a.idx", tokens)
    found = prepared(path, tmp_path / "out", encoder).index
    assert [one["name"] for one in found.sources[0].identity["files"]] == ["a.bin", "a.idx"]
    (tmp_path / "b").mkdir()
    moved = write_megatron(tmp_path / "b" / "a.idx", tokens)
    assert prepared(moved, tmp_path / "2", encoder).index.fingerprint == found.fingerprint
    write_megatron(moved, tokens, first_sequences=[0, 2, 5])
    assert prepared(moved, tmp_path / "3", encoder).index.fingerprint != found.fingerprint
    write_megatron(moved, tokens[::-1])
    assert prepared(moved, tmp_path / "4", encoder).index.fingerprint != found.fingerprint


def test_a_folder_and_either_name_of_a_pair_mean_the_pair(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_megatron(folder / "a.idx", tokens[:2])
    write_nanoset(folder / "b.ds", tokens[2:])
    assert documents(prepared(folder, tmp_path / "out", encoder)) == tokens
    assert documents(prepared(folder / "a.bin", tmp_path / "2", encoder)) == tokens[:2]
    assert named_source(str(folder / "a.idx")).label == "a.idx"


# What the index of five sequences holds where: the header, lengths, pointers, documents.
_LENGTHS, _POINTERS, _DOCUMENTS = 34, 34 + 5 * 4, 34 + 5 * 12
HOSTILE: dict[str, tuple[int, str, int, str]] = {
    "magic": (0, "<B", 0, "begins with .*: it is no index of Megatron$"),
    "version": (9, "<Q", 2, "has version 2, not 1$"),
    "floats": (17, "<B", 6, "has the dtype code 6, which is none of tokens: 1, 2, 3, 4, 5, 8$"),
    "many sequences": (18, "<Q", 1 << 63, "has 142 bytes; 9223372036854775808 sequences and 6 "),
    "many documents": (26, "<Q", (1 << 64) - 1, "has 142 bytes; 5 sequences and 184467440737095"),
    "negative length": (_LENGTHS, "<i", -1, "has a sequence of -1 tokens$"),
    "length": (_LENGTHS + 16, "<i", 1 << 30, r"a.bin has \d+ bytes, and .*a.idx says 214748\d+$"),
    "pointer back": (_POINTERS + 8, "<q", 0, r"has sequence 1 begin at byte 0, not \d+, where "),
    "pointer beyond": (_POINTERS + 8, "<q", 1 << 62, "has sequence 1 begin at byte 46116860184"),
    "first document": (_DOCUMENTS, "<q", 1, "has documents that do not go from 0 to sequence 5$"),
    "last document": (_DOCUMENTS + 40, "<q", 6, "documents that do not go from 0 to sequence 5$"),
    "order": (_DOCUMENTS + 8, "<q", 1 << 62, "has documents that do not follow each other$"),
    "negative document": (_DOCUMENTS + 8, "<q", -1, "documents that do not follow each other$"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_index_that_cannot_be_is_refused(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]], name: str
) -> None:
    at, format_, number, said = HOSTILE[name]
    path = write_megatron(tmp_path / "a.idx", tokens)
    error = check_refused(changed(path, at, format_, number), encoder)
    assert error.exit_code == 8
    assert re.search(said, str(error)), error


def test_a_short_or_missing_half_of_a_pair_is_refused(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    path = write_megatron(tmp_path / "a.idx", tokens)
    raw = path.read_bytes()
    path.write_bytes(raw[:20])
    assert "is no index of Megatron" in str(check_refused(path, encoder))
    path.write_bytes(raw[:-1])
    assert "has 141 bytes; 5 sequences and 6 entries of documents take 142" in str(
        check_refused(path, encoder)
    )
    path.write_bytes(raw + bytes(5))
    assert "has a mode for every sequence" in str(check_refused(path, encoder))
    path.write_bytes(raw)
    data = path.with_suffix(".bin")
    data.write_bytes(data.read_bytes()[:-2])
    assert f"a.bin has {data.stat().st_size} bytes, and " in str(check_refused(path, encoder))
    data.unlink()
    with pytest.raises(UsageError, match=r"a\.idx lacks a\.bin beside it$"):
        prepared(path, tmp_path / "out", encoder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has 0 bytes, not 8 a document"),
        (bytes(7), "has 7 bytes, not 8 a document"),
        (struct.pack("<Q", 1 << 63), "says 9223372036854775808 tokens of 2 or 4"),
        (struct.pack("<3Q", 4, 3, 10), "has documents that do not follow each other"),
    ],
    ids=["empty", "torn", "too long", "backwards"],
)
def test_an_index_of_datatrove_that_cannot_be_is_refused(
    tmp_path: Path, encoder: TextTokenizer, content: bytes, said: str
) -> None:
    path = write_nanoset(tmp_path / "a.ds", [[1] * 10])
    path.with_name("a.ds.index").write_bytes(content)
    assert said in str(check_refused(path, encoder))


def test_metadata_of_datatrove_must_have_the_bytes_of_a_token(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    path = write_nanoset(tmp_path / "a.ds", [[1] * 10])
    path.with_name("a.ds.metadata").write_text("gpt2|4\n10\n10 T")
    assert "says 4 bytes a token, and " in str(check_refused(path, encoder))


@pytest.mark.parametrize("token", [-1, VOCAB_SIZE])
def test_a_token_that_is_none_of_the_tokenizer_is_named(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]], token: int
) -> None:
    path = write_megatron(tmp_path / "a.idx", [*tokens, [token]], dtype="<i4")
    assert str(check_refused(path, encoder)) == (
        f"a.idx: document 6 holds the token {token}; tokenizer and model have those from 0 to "
        f"{min(VOCAB_SIZE, encoder.encoder.get_vocab_size()) - 1}"
    )


@pytest.mark.parametrize("value", [1.0, True, "a", None, -1, 1 << 32], ids=repr)
def test_a_list_of_something_else_than_tokens_is_refused(
    tmp_path: Path, encoder: TextTokenizer, value: object
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"input_ids": [1, value]}])
    said = f"a.jsonl line 1: the column input_ids holds a list with {value!r} in it, which is no "
    assert said in str(check_refused(path, encoder, text_column="input_ids"))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_null_among_lists_of_tokens_is_no_document(
    at: int, encoder: TextTokenizer, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{"input_ids": [5, 6]}, {"input_ids": [7]}]
    rows.insert(at, {"input_ids": None})
    path = write_rows(tmp_path / "tokens.jsonl", rows)
    files = prepared(path, tmp_path / "out", encoder, text_column="input_ids")
    assert documents(files) == [[5, 6], [7]]


def test_half_a_pair_in_a_folder_of_text_is_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text("one\n")
    (tmp_path / "tags.idx").write_bytes(b"of something else")
    found = text_files_of(named_source(str(tmp_path)))
    assert [file.name for file in found.files] == ["prose.txt"]
    assert "tokens without their other file" in " ".join(found.notes)
    assert "tags.idx" in " ".join(found.notes)


def test_text_and_tokens_are_two_sources(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_megatron(folder / "a.idx", tokens)
    write_stories(folder / "b.txt", 2)
    assert str(check_refused(folder, encoder)) == "data holds text and token ids"


def test_tokens_unlike_those_of_the_tokenizer_are_told(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    """Nothing in these files says which tokenizer made them."""
    said: list[str] = []

    class Told:
        def say(self, text: str) -> None:
            said.append(text)

        def bytes(self, what: str, total: int) -> Any:
            from hfgrow.console import Silent

            return Silent()

    sources = [
        TextSource(path=write_megatron(tmp_path / "a.idx", [[], *tokens])),
        TextSource(path=write_megatron(tmp_path / "b.idx", [list(range(30, 60))])),
    ]
    prepare(sources, encoder, tmp_path / "out", vocab_size=VOCAB_SIZE, progress=Told())
    assert said == [
        "Note: b.idx: its first document becomes other tokens when it is tokenised again; was it "
        "made with this tokenizer?",
        "Note: b.idx: its first document has no token that parts it from the next; none is put "
        "there",
    ]


def test_an_index_is_read_in_pieces(tmp_path: Path, encoder: TextTokenizer) -> None:
    """Sequences, and documents without tokens, more than are read at a time."""
    few = [[1, 2], [3], [4, 5, 6]]
    empty: list[list[int]] = [[]] * 70_000
    path = write_megatron(
        tmp_path / "a.idx", [few[0], *empty, few[1], few[2]], first_sequences=[0, 70_001, 70_003]
    )
    assert documents(prepared(path, tmp_path / "out", encoder)) == [few[0], [*few[1], *few[2]]]
    path = write_nanoset(tmp_path / "a.ds", [few[0], *empty, few[1], few[2]])
    files = prepared(path, tmp_path / "2", encoder)
    assert documents(files) == few
    assert files.sources[0].num_blank == len(empty)


def test_a_hole_of_a_terabyte_is_refused_by_its_ends(
    tmp_path: Path, tokens: list[list[int]]
) -> None:
    path, count = write_megatron(tmp_path / "a.idx", tokens), 1 << 36
    changed(path, 18, "<Q", count)
    os.truncate(path, 34 + 12 * count + 8 * 6)
    said = f"has documents that do not go from 0 to sequence {count}$"
    with pytest.raises(TrainingError, match=said):
        next(read_tokens(DataFile(path, MEGATRON, path.name), lambda count: None))
    path = write_nanoset(tmp_path / "a.ds", tokens)
    os.truncate(path.with_name("a.ds.index"), 1 << 40)
    with pytest.raises(TrainingError, match=r"a\.ds\.index says 0 tokens of 2 or 4$"):
        next(read_tokens(DataFile(path, NANOSET, path.name), lambda count: None))


def test_tokens_that_change_after_their_index_was_looked_at_are_refused(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    source = TextSource(path=write_megatron(tmp_path / "a.idx", tokens))
    identity = identify(source, {})
    pieces = documents_of(source, identity, lambda count: None)
    next(pieces)
    write_megatron(tmp_path / "a.idx", tokens)
    os.utime(tmp_path / "a.idx", ns=(0, identity["files"][1]["mtime_ns"]))
    os.utime(tmp_path / "a.bin", ns=(0, identity["files"][0]["mtime_ns"] + 1))
    with pytest.raises(TrainingError, match=r"a\.bin changed while it was read$"):
        list(pieces)


def test_the_bytes_that_are_told_are_those_that_were_announced(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_megatron(folder / "a.idx", tokens)
    write_nanoset(folder / "b.ds", tokens)
    told: list[int] = []
    source = TextSource(path=folder)
    list(documents_of(source, identify(source, {}), told.append))
    assert sum(told) == size_of(source) == 4 * sum(map(len, tokens))


def test_eval_measures_tokens_of_others_as_their_text(
    tmp_path: Path, encoder: TextTokenizer, tokens: list[list[int]]
) -> None:
    write_megatron(tmp_path / "a.idx", tokens)
    write_rows(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    found = []
    for name in ("a.idx", "a.jsonl"):
        done = call_hfgrow("eval", "demo", "--text", name, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        (text,) = json.loads(done.stdout)["texts"]
        found.append({**text["models"][0]})
    assert found[0] == found[1]
