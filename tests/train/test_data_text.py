"""How text is read: documents, files, folders, line ends, and in how much memory."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from hfgrow.data.documents import read_text
from hfgrow.data.prepare import prepare
from hfgrow.data.sources import TextSource
from hfgrow.data.tokenise import CHUNK_LENGTH, Chunker
from hfgrow.data.tokenizer import TextTokenizer
from tests.train.corpora import (
    VOCAB_SIZE,
    documents,
    expected,
    prepared,
    story,
    write_rows,
    write_stories,
)


def test_two_blank_lines_part_documents(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\nOne.\n\nStill one.\n\n\n\n\nTwo.\n\n\n \n\n\nThree.\n")
    files = prepared(path, tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "One.\n\nStill one.", "Two.", "Three.")
    (source,) = files.sources
    assert (source.num_documents, source.num_blank) == (3, 1)
    assert source.num_bytes == len("One.\n\nStill one.") + len("Two.") + len("Three.")


def test_a_file_can_be_one_document(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\n\n\n\nTwo.\n")
    files = prepared(path, tmp_path / "out", encoder, document_separator=None)
    assert documents(files) == expected(encoder, "One.\n\n\n\nTwo.")


def test_text_json_lines_and_their_gzips_make_the_same_tokens(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    stories = [story(i, 40) for i in range(5)]
    write_stories(tmp_path / "a.txt", 5, num_words=40)
    write_rows(tmp_path / "a.jsonl", [{"id": i, "text": text} for i, text in enumerate(stories)])
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    for name in ("a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz"):
        files = prepared(tmp_path / name, tmp_path / f"out-{name}", encoder)
        assert documents(files) == expected(encoder, *stories)


def test_a_folder_is_read_by_name_with_what_lies_below(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    (tmp_path / "text" / "deep").mkdir(parents=True)
    (tmp_path / "text" / "b.txt").write_text("Second.")
    (tmp_path / "text" / "a.txt").write_text("First.")
    (tmp_path / "text" / "deep" / "c.txt").write_text("Third.")
    (tmp_path / "text" / ".hidden.txt").write_text("No.")
    (tmp_path / "text" / "notes.pdf").write_text("No.")
    files = prepared(tmp_path / "text", tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "First.", "Second.", "Third.")
    pattern = prepared(tmp_path / "text" / "*.txt", tmp_path / "out2", encoder)
    assert len(documents(pattern)) == 3


@pytest.mark.case("H11")
def test_marks_line_ends_and_null_bytes_are_read_as_text(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfOne\r\nline\x00.\r\n\r\n\r\nTwo.\r\n")
    files = prepared(path, tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "One\nline\x00.", "Two.")


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
def test_how_a_file_is_read_does_not_matter(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = "\n\n\u00e9t\u00e9\r\n\r\n\r\nz\u2028\U0001f600\n\n\n\n\n\nlast\n\n".encode()
    path = tmp_path / "a.txt"
    path.write_bytes(raw)
    monkeypatch.setattr("hfgrow.data.documents._BLOCK_NBYTES", block)
    text = ""
    with path.open("rb") as stream:
        for piece in read_text(stream, "a.txt", "\n\n\n"):
            text += piece.text + ("|" if piece.is_last else "")
    assert text == "\u00e9t\u00e9|z\u2028\U0001f600|last|"


@pytest.mark.case("H13")
def test_one_line_of_20_megabytes_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("another word " * 1_600_000)
    nbytes = path.stat().st_size
    assert nbytes > 20_000_000
    chunker, lengths = Chunker(keeps_space=True), []
    tracemalloc.start()
    with path.open("rb") as stream:
        for chunk in chunker.chunks(read_text(stream, "a.txt", "\n\n\n")):
            lengths.append(len(chunk.text))
    peak_nbytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_nbytes < 8_000_000
    assert (sum(lengths), max(lengths) <= CHUNK_LENGTH) == (nbytes, True)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_long_document_has_the_tokens_it_would_have_in_one_piece(
    tmp_path: Path, encoder: TextTokenizer, suffix: str
) -> None:
    text = story(3, 60_000)
    path = tmp_path / f"a{suffix}"
    path.write_text(text if suffix == ".txt" else json.dumps({"text": text}))
    files = prepared(path, tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, text)


def test_text_without_a_space_is_cut_and_kept(tmp_path: Path, encoder: TextTokenizer) -> None:
    text = "ab" * 100_000
    (tmp_path / "a.txt").write_text(text)
    (found,) = documents(prepared(tmp_path / "a.txt", tmp_path / "out", encoder))
    assert encoder.encoder.decode(found).replace("\0", "") == text


def test_the_text_that_python_carries_is_a_source(tmp_path: Path, encoder: TextTokenizer) -> None:
    source = TextSource(dataset="demo")
    files = prepare([source], encoder, tmp_path / "out", vocab_size=VOCAB_SIZE)
    assert files.index.num_documents > 50


@pytest.mark.case("H9", "H12")
def test_null_rows_and_blank_lines_are_no_text(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": null}\n\n{"text": "One."}\n{"text": "  "}\n')
    files = prepared(path, tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "One.")
    assert files.sources[0].num_blank == 2
