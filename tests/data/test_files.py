"""What of a path is text to train on: kinds, compressions, folders as datasets are published."""

import bz2
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from hfgrow.data.data_files import text_files
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.errors import TrainingError, UsageError
from tests.data.corpora import documents, expected, prepared, story, write_rows
from tests.program import call_hfgrow


def names(folder: Path) -> list[str]:
    return [file.name for file in text_files(folder).files]


def put(folder: Path, *paths: str, content: str = "Some text.") -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def zstd(raw: bytes) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    sink = arrow.BufferOutputStream()
    with arrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)]
)
@pytest.mark.parametrize("kind", [".jsonl", ".txt", ".csv"])
def test_compressed_text_makes_the_tokens_of_the_text(
    tmp_path: Path,
    encoder: TextTokenizer,
    kind: str,
    suffix: str,
    compress: Callable[[bytes], bytes],
) -> None:
    text = story(1, 30)
    content = {".jsonl": json.dumps({"text": text}), ".txt": text, ".csv": f"id,text\n1,{text}\n"}
    path = tmp_path / f"a{kind}{suffix}"
    # Two frames after one another are one file, as `cat` and parallel compressors make them.
    raw = content[kind].encode()
    path.write_bytes(compress(raw[:9]) + compress(raw[9:]))
    assert documents(prepared(path, tmp_path / "out", encoder)) == expected(encoder, text)


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.txt.bz2", "a.txt.xz", "a.csv.zst"])
def test_what_cannot_be_decompressed_is_named(
    tmp_path: Path, encoder: TextTokenizer, name: str
) -> None:
    if name.endswith(".zst"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd" + bytes(80))
    with pytest.raises(TrainingError, match=f"cannot decompress .*{name}") as caught:
        prepared(tmp_path / name, tmp_path / "out", encoder)
    assert str(caught.value).isprintable()


def test_zstd_without_what_reads_it_says_how_to_decompress(
    tmp_path: Path, encoder: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfgrow.data.data_files.find_spec", lambda name: None)
    (tmp_path / "a.jsonl.zst").write_bytes(b"")
    with pytest.raises(UsageError, match="needs pyarrow") as caught:
        prepared(tmp_path / "a.jsonl.zst", tmp_path / "out", encoder)
    assert "zstd -d" in caught.value.hint


def test_the_card_and_licence_of_a_dataset_are_no_text(tmp_path: Path) -> None:
    put(tmp_path, "README.md", "LICENSE.txt", "CITATION.md", "requirements.txt", "data/a.jsonl")
    found = text_files(tmp_path)
    assert [file.name for file in found.files] == ["data/a.jsonl"]
    (note,) = found.notes
    assert "README.md" in note
    assert "LICENSE.txt" in note


def test_the_first_page_of_prose_is_text(tmp_path: Path) -> None:
    put(tmp_path, "README.md", "guide.md", "deep/README.md", content="# Title\n")
    assert names(tmp_path) == ["README.md", "deep/README.md", "guide.md"]


def test_a_card_with_metadata_is_none_even_alone(tmp_path: Path) -> None:
    put(tmp_path, "README.md", content="---\nlicense: mit\n---\n")
    put(tmp_path, "data.zip")
    with pytest.raises(UsageError, match=r"only data\.zip"):
        text_files(tmp_path)


@pytest.mark.parametrize(
    "held_out",
    [
        "data/test-00000-of-00001.jsonl",
        "test/a.jsonl",
        "validation.jsonl",
        "corpus_dev.txt",
        "wiki.valid.txt",
        "eval/x.json",
    ],
)
def test_another_split_than_train_is_left_out_with_a_note(tmp_path: Path, held_out: str) -> None:
    put(tmp_path, "data/train-00000-of-00001.jsonl", held_out)
    found = text_files(tmp_path)
    assert [file.name for file in found.files] == ["data/train-00000-of-00001.jsonl"]
    (note,) = found.notes
    assert held_out in note


@pytest.mark.parametrize("name", ["latest.txt", "testament.txt", "device.jsonl", "evaluated.md"])
def test_a_word_that_only_begins_so_is_no_split(tmp_path: Path, name: str) -> None:
    put(tmp_path, "a.txt", name)
    assert names(tmp_path) == sorted(["a.txt", name])


def test_a_folder_of_nothing_but_a_test_split_is_what_was_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "test/a.txt", "test/b.txt")
    assert names(tmp_path) == ["test/a.txt", "test/b.txt"]
    assert names(tmp_path / "test") == ["a.txt", "b.txt"]


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    text = put(tmp_path / "text", "a.jsonl", "b.pdf", "c.html", "d/e.zip", content='{"text": "x"}')
    (note,) = text_files(text).notes
    assert "3 files, b.pdf, c.html, d/e.zip" in note
    words = ("data", "prepare", text, "--tokenizer", "demo", "--out", tmp_path / "tok")
    assert "b.pdf" in call_hfgrow(*words).stderr


def test_a_folder_of_other_kinds_alone_is_refused_by_their_names(tmp_path: Path) -> None:
    put(tmp_path, "a.pdf", "b.zip")
    with pytest.raises(UsageError, match=r"only 2 files, a\.pdf, b\.zip"):
        text_files(tmp_path)


def test_what_save_to_disk_writes_is_read(tmp_path: Path, encoder: TextTokenizer) -> None:
    datasets = pytest.importorskip("datasets")
    stories = [story(i, 30) for i in range(4)]
    rows = datasets.Dataset.from_list([{"text": text, "id": 1} for text in stories])
    both = datasets.DatasetDict({"train": rows.select([0, 1, 2]), "test": rows.select([3])})
    both.save_to_disk(str(tmp_path / "saved"))
    files = prepared(tmp_path / "saved", tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, *stories[:3])


def test_an_arrow_file_that_is_none_says_what_would_do(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    pytest.importorskip("datasets")
    put(tmp_path, "data/state.json", "data/dataset_info.json", content="{\n}")
    (tmp_path / "data" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1" + bytes(50))
    with pytest.raises(TrainingError, match=r"data-00000-of-00001\.arrow cannot be") as caught:
        prepared(tmp_path / "data", tmp_path / "out", encoder)
    assert "to_parquet" in caught.value.hint


def test_a_part_without_rows_is_no_fault(tmp_path: Path, encoder: TextTokenizer) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    put(tmp_path, "data/a.jsonl", "data/b.json", "data/c.csv", content="")
    put(tmp_path, "data/d.json", content="[]")
    nothing = arrow.table({"text": arrow.array([], arrow.string())})
    parquet.write_table(nothing, tmp_path / "data" / "e.parquet")
    write_rows(tmp_path / "data" / "f.jsonl", [{"text": "One."}])
    files = prepared(tmp_path / "data", tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "One.")


def test_tab_separated_values_are_read(tmp_path: Path, encoder: TextTokenizer) -> None:
    put(tmp_path, "a.tsv", content="id\ttext\n1\tOne, two.\n2\tThree.\n")
    files = prepared(tmp_path / "a.tsv", tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "One, two.", "Three.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,text\n1,caf\xe9\n", "is not UTF-8"),
        (b'id,text\n1,"hello\n', "is no CSV"),
        (b"id,content\n1,words\n", "has no column text; the columns are id, content"),
    ],
)
def test_a_broken_table_is_refused(
    tmp_path: Path, encoder: TextTokenizer, content: bytes, message: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        prepared(tmp_path / "a.csv", tmp_path / "out", encoder)


def test_a_picture_makes_no_card_of_a_readme(tmp_path: Path) -> None:
    put(tmp_path, "README.md", "guide.md", "p.png", content="# Title\n")
    assert names(tmp_path) == ["README.md", "guide.md"]
