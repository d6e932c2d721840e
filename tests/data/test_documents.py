"""How text is read: documents, files, folders, line ends, and in how much memory.

Parquet files and datasets of the Hub (H10, H12, H16); what needs `datasets` and has it not.
"""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from hfgrow.data.columns import pinned, read_dataset
from hfgrow.data.documents import TextPiece, read_text
from hfgrow.data.prepare import prepare
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.data.tokenise import CHUNK_LENGTH, Chunker
from hfgrow.errors import GrowthError, TrainingError, UsageError
from hfgrow.hub.client import HubClient
from tests.data.corpora import (
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


@pytest.mark.parametrize(
    "content",
    [
        "One.\n\n\nStill one.\n<|endoftext|>\nTwo.\n<|endoftext|>\nThree.\n",
        "One.\n\n\nStill one.<|endoftext|>\nTwo.<|endoftext|>Three.",
        "<|end_of_text|>One.\n\n\nStill one.<|end_of_text|>Two.<|end_of_text|>\nThree.",
        "One.\r\n\r\n\r\nStill one.\r\n</s>\r\nTwo.\r\n</s>\r\nThree.",
    ],
)
def test_marks_of_the_end_of_a_text_part_documents(
    tmp_path: Path, encoder: TextTokenizer, content: str
) -> None:
    """As TinyStories is published, and what was joined for GPT-2."""
    (tmp_path / "a.txt").write_text(content, newline="")
    files = prepared(tmp_path / "a.txt", tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "One.\n\n\nStill one.", "Two.", "Three.")
    assert files.sources[0].identity["end_of_text"] in content


@pytest.mark.parametrize(
    "content", ["The token `<|endoftext|>` ends.\n\n\nTwo.", "A </s> b.\n\n\nTwo."]
)
def test_a_mark_that_prose_names_parts_nothing(
    tmp_path: Path, encoder: TextTokenizer, content: str
) -> None:
    (tmp_path / "a.txt").write_text(content)
    files = prepared(tmp_path / "a.txt", tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, *content.split("\n\n\n"))
    assert "end_of_text" not in files.sources[0].identity


def test_tokens_that_were_prepared_before_marks_were_looked_for_are_used(
    tmp_path: Path, encoder: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("One.\n<|endoftext|>\nTwo.\n")
    with monkeypatch.context() as patch:
        patch.setattr("hfgrow.data.prepare.end_of_text_in", lambda file: "")
        before = prepared(tmp_path / "a.txt", tmp_path / "out", encoder)
    assert before.index == prepared(tmp_path / "a.txt", tmp_path / "out", encoder).index
    source = TextSource(path=tmp_path / "a.txt")
    anew = prepare([source], encoder, tmp_path / "out", vocab_size=VOCAB_SIZE, overwrite=True)
    assert documents(anew) == expected(encoder, "One.", "Two.")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_files_of_a_dataset_may_have_other_columns_beside_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The same call that reads from the Hub, on a folder of that shape; one part has no rows."""
    pytest.importorskip("datasets")
    parts: list[list[dict[str, object]]] = [
        [{"text": "One.", "id": 1}],
        [{"text": "Two.", "url": "x", "score": {"a": 1.5}}],
        [],
        [{"id": "three", "text": "Three."}],
    ]
    (tmp_path / "mixed" / "data").mkdir(parents=True)
    for i, rows in enumerate(parts):
        path = tmp_path / "mixed" / "data" / f"train-{i}.{kind}"
        if kind == "jsonl":
            write_rows(path, rows)
        else:
            keys = rows[0] if rows else {"text": ""}
            write_parquet(path, **{key: [row[key] for row in rows] for key in keys})
    monkeypatch.chdir(tmp_path)
    pieces = read_dataset(TextSource(dataset="mixed"), "0" * 40, HubClient())
    assert list(pieces) == [TextPiece(text, True) for text in ("One.", "Two.", "Three.")]


def test_a_dataset_of_several_configurations_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "many"
    for name in ("de", "en"):
        (folder / name).mkdir(parents=True)
        write_rows(folder / name / "train.jsonl", [{"text": name}])
    configs = "".join(f"- config_name: {n}\n  data_files: {n}/*.jsonl\n" for n in ("de", "en"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    monkeypatch.chdir(tmp_path)
    for source in (TextSource(dataset="many"), TextSource(dataset="many", name="fr")):
        with pytest.raises(TrainingError, match=r"choose one of de, en$") as caught:
            list(read_dataset(source, "0" * 40, HubClient()))
        assert caught.value.hint == "name=de, for example"
    (piece,) = read_dataset(TextSource(dataset="many", name="en"), "0" * 40, HubClient())
    assert piece == TextPiece("en", True)


@pytest.mark.parametrize(
    "files", [{"x.bin": b"\0"}, {"train.jsonl": b'{"text": \n'}, {"train.parquet": b"PAR1"}]
)
def test_a_dataset_that_cannot_be_read_is_no_fault_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "odd").mkdir()
    for name, content in files.items():
        (tmp_path / "odd" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="the dataset odd cannot be read: ") as caught:
        list(read_dataset(TextSource(dataset="odd"), "0" * 40, HubClient()))
    assert str(caught.value).isprintable()
    assert "\ufffd" not in str(caught.value)


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


@pytest.mark.parametrize("block", [1, 2, 5, 1 << 20])
def test_a_long_separator_parts_short_documents(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a\n<|endoftext|>\nb\n<|endoftext|>c<|endoftext|>\n\nd\n")
    monkeypatch.setattr("hfgrow.data.documents._BLOCK_NBYTES", block)
    text = ""
    with (tmp_path / "a.txt").open("rb") as stream:
        for piece in read_text(stream, "a.txt", "<|endoftext|>"):
            text += piece.text + ("|" if piece.is_last else "")
    assert text == "a|b|c|d|"


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


def write_parquet(path: Path, **columns: list[Any]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, row_group_size=2)
    return path


def test_parquet_makes_the_tokens_that_json_lines_make(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    pytest.importorskip("datasets")
    stories = [story(i, 30) for i in range(7)]
    path = write_parquet(tmp_path / "a.parquet", text=[*stories, None], id=list(range(8)))
    rows = write_rows(tmp_path / "a.jsonl", [{"text": text} for text in stories])
    ours = prepared(path, tmp_path / "out", encoder)
    assert documents(ours) == documents(prepared(rows, tmp_path / "out2", encoder))
    assert ours.sources[0].num_blank == 1


@pytest.mark.case("H10", "H12")
def test_parquet_is_read_where_no_cache_can_be_made(
    tmp_path: Path, encoder: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a home that is read-only: a file stands in the place of its folder."""
    path = write_parquet(tmp_path / "a.parquet", text=["one story", "another"])
    (tmp_path / "home").touch()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home" / "cache")
    assert prepared(path, tmp_path / "out", encoder).index.num_documents == 2


def test_parquet_without_text_is_refused(tmp_path: Path, encoder: TextTokenizer) -> None:
    pytest.importorskip("datasets")
    path = write_parquet(tmp_path / "a.parquet", id=[1, 2], content=["a", "b"])
    with pytest.raises(
        TrainingError, match="no column text; the columns are id, content"
    ) as caught:
        prepared(path, tmp_path / "out", encoder)
    assert caught.value.hint == "text_column=content"
    with pytest.raises(TrainingError, match=r"row 1: the column id holds 1 \(int\), not text"):
        prepared(path, tmp_path / "out", encoder, text_column="id")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 is not all")
    with pytest.raises(TrainingError, match=r"b\.parquet cannot be read as parquet"):
        prepared(tmp_path / "b.parquet", tmp_path / "out", encoder)


@pytest.mark.case("H16")
def test_a_dataset_with_a_loading_script_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H16: the same call that reads from the Hub, on a folder of that shape."""
    pytest.importorskip("datasets")
    folder = tmp_path / "scripted"
    folder.mkdir()
    marker = tmp_path / "ran"
    (folder / "scripted.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    source = TextSource(dataset="scripted")
    with pytest.raises(GrowthError, match="scripted") as caught:
        list(read_dataset(source, "0" * 40, HubClient()))
    assert not marker.exists()
    assert "runs no code" in str(caught.value)


def test_what_needs_datasets_says_so_where_it_is_missing(
    tmp_path: Path, encoder: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfgrow.data.columns.find_spec", lambda name: None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="needs datasets, which is not installed") as caught:
        prepared(tmp_path / "a.parquet", tmp_path / "out", encoder)
    assert caught.value.hint == "pip install datasets"


def test_a_dataset_has_a_name_and_a_revision_that_can_be(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    client = HubClient(endpoint="http://127.0.0.1:9")
    for source in (
        TextSource(dataset="../x"),
        TextSource(dataset="org/name", revision="../../x"),
    ):
        with pytest.raises(UsageError):
            pinned(source, client)
    sha = "0123456789" * 4
    assert pinned(TextSource(dataset="org/name", revision=sha), client) == sha
