"""Text to tokens: what is read, what is written, what is refused (H9 to H14, H16)."""

import gzip
import json
import os
import shutil
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hfgrow.errors import GrowthError, ModelError, OutputError, TrainingError, UsageError
from hfgrow.train.data.chunks import CHUNK_LENGTH, Chunker
from hfgrow.train.data.prepare import prepare
from hfgrow.train.data.sources import TextSource
from hfgrow.train.data.text_files import read_text
from hfgrow.train.data.token_files import TokenFiles
from hfgrow.train.data.tokenizer import TextTokenizer, open_tokenizer
from tests.checkpoints import write_tokenizer
from tests.train.corpora import (
    DEMO,
    VOCAB_SIZE,
    documents,
    prepared,
    story,
    tokenizer,
    write_rows,
    write_stories,
)


@pytest.fixture(scope="module")
def encoder() -> TextTokenizer:
    return tokenizer()


def expected(encoder: TextTokenizer, *texts: str) -> list[list[int]]:
    """Tokenise every document in one call, as nothing in the data layer does."""
    plain = [encoder.encoder.encode(text, add_special_tokens=False).ids for text in texts]
    return [[*encoder.prefix, *ids, *encoder.suffix] for ids in plain]


def refusal(path: Path, encoder: TextTokenizer, **options: object) -> GrowthError:
    """Return the error of preparing a file, and see that it left nothing behind."""
    folder = path.parent / "refused"
    before = set(os.listdir(path.parent))
    with pytest.raises(GrowthError) as caught:
        prepared(path, folder, encoder, **options)
    assert set(os.listdir(path.parent)) == before
    return caught.value


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
    monkeypatch.setattr("hfgrow.train.data.text_files._BLOCK_NBYTES", block)
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


def test_the_index_tells_what_lies_there(tmp_path: Path, encoder: TextTokenizer) -> None:
    paths = [write_stories(tmp_path / f"{i}.txt", 4, first=10 * i) for i in range(2)]
    sources = [TextSource(path=path) for path in paths]
    files = prepare(sources, encoder, tmp_path / "out", vocab_size=VOCAB_SIZE, max_shard_nbytes=200)
    content = json.loads((tmp_path / "out" / "index.json").read_text())
    assert content["dtype"] == "uint16"
    assert content["tokenizer"]["sha256"] == encoder.sha256
    assert len(content["shards"]) > 2
    assert [source["label"] for source in content["sources"]] == ["0.txt", "1.txt"]
    assert str(tmp_path) not in json.dumps(content)
    raw = b"".join((tmp_path / "out" / s["file"]).read_bytes() for s in content["shards"])
    assert np.frombuffer(raw, "<u2").tolist() == files.read(0, files.num_tokens).tolist()
    assert [n for tokens in documents(files) for n in tokens] == files.read(
        0, files.num_tokens
    ).tolist()
    files.verify()


def test_large_vocabularies_take_four_bytes(tmp_path: Path, encoder: TextTokenizer) -> None:
    source = TextSource(path=write_stories(tmp_path / "a.txt", 2))
    wide = prepare([source], encoder, tmp_path / "wide", vocab_size=1 << 17)
    slim = prepare([source], encoder, tmp_path / "slim", vocab_size=1 << 16)
    assert (wide.index.dtype, slim.index.dtype) == ("uint32", "uint16")
    assert documents(wide) == documents(slim)


def test_what_was_prepared_is_used_again(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_stories(tmp_path / "a.txt", 3)
    prepared(path, tmp_path / "out", encoder)
    before = (tmp_path / "out" / "index.json").stat()
    prepared(path, tmp_path / "out", encoder)
    os.utime(path)
    prepared(path, tmp_path / "out", encoder)
    assert (tmp_path / "out" / "index.json").stat().st_mtime_ns == before.st_mtime_ns


def test_other_text_is_refused_or_replaced_as_asked(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_stories(tmp_path / "a.txt", 3)
    prepared(path, tmp_path / "out", encoder)
    write_stories(path, 3, first=7)
    with pytest.raises(TrainingError, match="holds the tokens of other text"):
        prepared(path, tmp_path / "out", encoder)
    source = TextSource(path=path)
    prepare([source], encoder, tmp_path / "out", vocab_size=VOCAB_SIZE, overwrite=True)
    assert documents(TokenFiles(tmp_path / "out"))[0] == expected(encoder, story(7, 60))[0]


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_stories(tmp_path / "a.txt", 3)
    files = prepared(path, tmp_path / "out", encoder)
    config = json.loads((DEMO / "tokenizer.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer_config.json").write_bytes((DEMO / "tokenizer_config.json").read_bytes())
    (other / "tokenizer.json").write_text(json.dumps(config, indent=1))
    assert open_tokenizer(other).identity == encoder.identity
    merged = config["model"]["merges"]
    merged[0], merged[1] = merged[1], merged[0]
    (other / "tokenizer.json").write_text(json.dumps(config))
    changed = open_tokenizer(other)
    with pytest.raises(TrainingError, match="tokenised with another tokenizer"):
        prepared(path, tmp_path / "out", changed)
    with pytest.raises(TrainingError, match="tokenised with another tokenizer"):
        files.check_tokenizer(changed, VOCAB_SIZE)


def test_a_tokenizer_that_parts_no_documents_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="neither eos_token nor bos_token"):
        open_tokenizer(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match="has no tokenizer"):
        open_tokenizer(tmp_path / "none")


@pytest.mark.case("H14")
def test_a_token_that_the_model_does_not_have_is_refused(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    """H14, when it is made and when it is found again."""
    source = TextSource(path=write_stories(tmp_path / "a.txt", 3))
    with pytest.raises(ModelError, match=r"token \d+ .* vocab_size is 50"):
        prepare([source], encoder, tmp_path / "out", vocab_size=50)
    assert not (tmp_path / "out").exists()
    prepare([source], encoder, tmp_path / "out", vocab_size=VOCAB_SIZE)
    with pytest.raises(ModelError, match="vocab_size is 50"):
        prepare([source], encoder, tmp_path / "out", vocab_size=50)


@pytest.mark.case("H9")
@pytest.mark.parametrize("content", [b"", b"\n\n \n\t\n\n\n\n", b"\xef\xbb\xbf"], ids=repr)
def test_text_without_a_token_is_refused(
    tmp_path: Path, encoder: TextTokenizer, content: bytes
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    error = refusal(tmp_path / "a.txt", encoder)
    assert isinstance(error, TrainingError)
    assert (error.exit_code, "a.txt has 0 usable tokens" in str(error)) == (8, True)


@pytest.mark.case("H9", "H12")
def test_null_rows_and_blank_lines_are_no_text(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": null}\n\n{"text": "One."}\n{"text": "  "}\n')
    files = prepared(path, tmp_path / "out", encoder)
    assert documents(files) == expected(encoder, "One.")
    assert files.sources[0].num_blank == 2


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
    assert refusal(path, encoder).hint == "text_column: content"
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


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path, encoder: TextTokenizer) -> None:
    source = TextSource(path=write_stories(tmp_path / "a.txt", 2))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(OutputError, match="holds no prepared tokens"):
        prepare([source], encoder, tmp_path / "out", vocab_size=VOCAB_SIZE, overwrite=True)
    assert os.listdir(tmp_path / "out") == ["precious"]


def test_tokens_are_not_written_into_the_folder_of_their_text(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    write_stories(tmp_path / "a.txt", 2)
    for out in (tmp_path, tmp_path / "run" / "tokens"):
        with pytest.raises(OutputError, match="lies in the folder of the text"):
            prepare([TextSource(path=tmp_path)], encoder, out, vocab_size=VOCAB_SIZE)
    assert os.listdir(tmp_path) == ["a.txt"]


def damaged_index(folder: Path, key: str, value: object) -> None:
    content = json.loads((folder / "index.json").read_text())
    content[key] = value
    (folder / "index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "object"),
        ("shards", [{"file": "../a.txt", "nbytes": 1, "sha256": "0" * 64}]),
        ("shards", []),
        ("sources", []),
        ("lists", 5),
        ("max_token", -1),
        ("schema", 99),
        ("max_token", 1 << 16),
    ],
)
def test_a_damaged_index_is_refused(
    tmp_path: Path, encoder: TextTokenizer, key: str, value: object
) -> None:
    prepared(write_stories(tmp_path / "a.txt", 2), tmp_path / "out", encoder)
    damaged_index(tmp_path / "out", key, value)
    with pytest.raises(TrainingError):
        TokenFiles(tmp_path / "out")


def test_a_token_beyond_the_largest_is_found_when_it_is_read(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    files = prepared(write_stories(tmp_path / "a.txt", 2), tmp_path / "out", encoder)
    shard = tmp_path / "out" / files.index.shards[0].file
    shard.write_bytes(b"\xff\xff" + shard.read_bytes()[2:])
    with pytest.raises(TrainingError, match="holds the token 65535"):
        TokenFiles(tmp_path / "out").read(0, 8)


def test_the_label_of_a_source_is_shown_without_what_a_terminal_obeys(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    files = prepared(write_stories(tmp_path / "a.txt", 2), tmp_path / "out", encoder)
    source = {**asdict(files.sources[0]), "label": "a\x1b[2Jb"}
    damaged_index(tmp_path / "out", "sources", [source])
    (found,) = TokenFiles(tmp_path / "out").sources
    assert "\x1b" not in found.label


def test_damaged_shards_are_refused(tmp_path: Path, encoder: TextTokenizer) -> None:
    files = prepared(write_stories(tmp_path / "a.txt", 2), tmp_path / "out", encoder)
    shard = tmp_path / "out" / files.index.shards[0].file
    raw = bytearray(shard.read_bytes())
    raw[4] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(TrainingError, match="is damaged: its sha256"):
        TokenFiles(tmp_path / "out").verify()
    shard.write_bytes(raw[:-2])
    with pytest.raises(TrainingError, match=r"has .* bytes, index.json says"):
        TokenFiles(tmp_path / "out")
    shard.unlink()
    with pytest.raises(TrainingError, match="is missing"):
        TokenFiles(tmp_path / "out")


def test_a_tokenizer_that_fails_is_named_whatever_it_raises(tmp_path: Path) -> None:
    """A panic of Rust code is no Exception."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(DEMO / name, tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = None
    content["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "missing"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"cannot encode|can be opened"):
        open_tokenizer(tmp_path).encode(["words that are not there"])
