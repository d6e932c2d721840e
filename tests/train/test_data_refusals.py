"""Text that is refused, with its place and nothing left behind (H9 to H12)."""

import gzip
from pathlib import Path

import pytest

from hfgrow.data.sources import TextSource
from hfgrow.data.tokenizer import TextTokenizer
from hfgrow.errors import TrainingError, UsageError
from tests.train.corpora import documents, expected, prepared, refusal, write_rows


@pytest.mark.case("H9")
@pytest.mark.parametrize("content", [b"", b"\n\n \n\t\n\n\n\n", b"\xef\xbb\xbf"], ids=repr)
def test_text_without_a_token_is_refused(
    tmp_path: Path, encoder: TextTokenizer, content: bytes
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    error = refusal(tmp_path / "a.txt", encoder)
    assert isinstance(error, TrainingError)
    assert (error.exit_code, "a.txt has 0 usable tokens" in str(error)) == (8, True)


@pytest.mark.case("H10", "H11", "H12")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"good \xe9t\xe9", "is not UTF-8: byte 0xe9 at offset 5"),
        ("a.txt", b"x" * (1 << 20) + b"\xc3", "byte 0xc3 at offset 1048576"),
        ("a.txt", "text".encode("utf-16"), "is UTF-16, not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "byte 0xff at offset 24"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b\n', "line 3 is not JSON"),
        ("a.jsonl", b'["text"]\n', "line 1 is a JSON list, not an object"),
        (
            "a.jsonl",
            b'{"text": "x"}\n{"text": 5}\n',
            "line 2: the column text holds 5 .int., not text",
        ),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: .* half of a surrogate pair"),
        ("a.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        ("a.jsonl", b'{"id": 1, "content": "x"}\n', "has no column text; .* are id, content"),
        ("a.jsonl", b'{"text": "x"}\n{"id": 1}\n', "line 2 has no column text; .* are id"),
        ("a.txt.gz", b"no gzip", "cannot read .*a.txt.gz"),
        ("a.txt.gz", gzip.compress(b"text" * 999, mtime=0)[:-9], "cannot read .*a.txt.gz"),
    ],
)
def test_broken_text_is_refused_with_its_place(
    tmp_path: Path, encoder: TextTokenizer, name: str, content: bytes, message: str
) -> None:
    """H10 to H12."""
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name, encoder)
    assert isinstance(error, TrainingError)
    with pytest.raises(TrainingError, match=message):
        raise error
    assert name in str(error)


@pytest.mark.case("H10")
def test_a_missing_column_suggests_one_with_text(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"id": 1, "content": "x"}])
    assert refusal(path, encoder).hint == "--text-column content"
    files = prepared(path, tmp_path / "out", encoder, text_column="content")
    assert documents(files) == expected(encoder, "x")


def test_sources_that_cannot_be_are_usage_errors(tmp_path: Path, encoder: TextTokenizer) -> None:
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.txt", tmp_path / "a.csv", tmp_path / "empty"):
        assert isinstance(refusal(path, encoder), UsageError)
    for split in ("validation", "train[5:]", "train[50%:20%]", "train[:200%]", ""):
        with pytest.raises(UsageError, match="split"):
            TextSource(path=tmp_path / "a.txt", split=split)
    with pytest.raises(UsageError, match="either a path or a dataset"):
        TextSource()
