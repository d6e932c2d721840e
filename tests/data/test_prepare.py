"""What preparing text writes, when it writes again, and over what it never does.

Text that is refused, with its place and nothing left behind (H9 to H12).

Prepared tokens that somebody damaged.
"""

import gzip
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hfgrow.data.prepare import prepare
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.data.token_folder import TokenFiles
from hfgrow.errors import OutputError, TrainingError, UsageError
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


def test_a_file_that_was_renamed_is_the_text_that_was_prepared(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    path = write_stories(tmp_path / "a.txt", 3)
    prepared(path, tmp_path / "out", encoder)
    index = (tmp_path / "out" / "index.json").read_bytes()
    prepared(path.rename(tmp_path / "b.txt"), tmp_path / "out", encoder)
    assert (tmp_path / "out" / "index.json").read_bytes() == index


def test_the_same_bytes_read_in_another_way_are_other_text(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a cat sat"}])
    prepared(path, tmp_path / "out", encoder)
    with pytest.raises(TrainingError, match="holds the tokens of other text"):
        prepared(path.rename(tmp_path / "a.txt"), tmp_path / "out", encoder)


def test_other_text_is_refused_or_replaced_as_asked(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_stories(tmp_path / "a.txt", 3)
    prepared(path, tmp_path / "out", encoder)
    write_stories(path, 3, first=7)
    with pytest.raises(TrainingError, match="holds the tokens of other text"):
        prepared(path, tmp_path / "out", encoder)
    source = TextSource(path=path)
    prepare([source], encoder, tmp_path / "out", vocab_size=VOCAB_SIZE, overwrite=True)
    assert documents(TokenFiles(tmp_path / "out"))[0] == expected(encoder, story(7, 60))[0]


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


@pytest.mark.case("H9")
@pytest.mark.parametrize("content", [b"", b"\n\n \n\t\n\n\n\n", b"\xef\xbb\xbf"], ids=repr)
def test_text_without_a_token_is_refused(
    tmp_path: Path, encoder: TextTokenizer, content: bytes
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    error = check_refused(tmp_path / "a.txt", encoder)
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
        ("a.jsonl", b'["text"]\n', "element 1 is a JSON str, not an object"),
        (
            "a.jsonl",
            b'{"text": "x"}\n{"text": 5}\n',
            "line 2: the column text holds 5 .int., not text",
        ),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: .* half of a surrogate pair"),
        ("a.jsonl", b"[" * 200_000, "element 1 is not JSON"),
        ("a.jsonl", b'{"id": 1, "content": "x"}\n', "has no column text; .* are id, content"),
        ("a.jsonl", b'{"text": "x"}\n{"id": 1}\n', "line 2 has no column text; .* are id"),
        ("a.txt.gz", b"no gzip", "cannot decompress .*a.txt.gz"),
        ("a.txt.gz", gzip.compress(b"text" * 999, mtime=0)[:-9], "cannot decompress .*a.txt.gz"),
    ],
)
def test_broken_text_is_refused_with_its_place(
    tmp_path: Path, encoder: TextTokenizer, name: str, content: bytes, message: str
) -> None:
    """H10 to H12."""
    (tmp_path / name).write_bytes(content)
    error = check_refused(tmp_path / name, encoder)
    assert isinstance(error, TrainingError)
    with pytest.raises(TrainingError, match=message):
        raise error
    assert name in str(error)


@pytest.mark.case("H10")
def test_a_missing_column_suggests_one_with_text(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"id": 1, "content": "x"}])
    assert check_refused(path, encoder).hint == "text_column=content"
    files = prepared(path, tmp_path / "out", encoder, text_column="content")
    assert documents(files) == expected(encoder, "x")


def test_a_missing_column_suggests_tokens_where_there_is_no_text(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"input_ids": [1, 2]}])
    assert check_refused(path, encoder).hint == "text_column=input_ids"


def test_sources_that_cannot_be_are_usage_errors(tmp_path: Path, encoder: TextTokenizer) -> None:
    (tmp_path / "a.pdf").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.txt", tmp_path / "a.pdf", tmp_path / "empty"):
        assert isinstance(check_refused(path, encoder), UsageError)
    for split in ("validation", "train[5:]", "train[50%:20%]", "train[:200%]", ""):
        with pytest.raises(UsageError, match="split"):
            TextSource(path=tmp_path / "a.txt", split=split)
    with pytest.raises(UsageError, match="either a path or a dataset"):
        TextSource()


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


def test_what_is_damaged_is_prepared_again_as_its_hint_says(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    text, out = write_stories(tmp_path / "a.txt", 2), tmp_path / "out"
    shard = out / prepared(text, out, encoder).index.shards[0].file
    whole = shard.read_bytes()
    for damaged in (whole[:-2], whole[:4] + b"\1\1" + whole[6:]):
        shard.write_bytes(damaged)
        with pytest.raises(TrainingError) as caught:
            TokenFiles(out).verify()
        assert f"overwrite, or remove {out} first" in caught.value.hint
        source = TextSource(path=text)
        prepare([source], encoder, out, vocab_size=VOCAB_SIZE, overwrite=True, verify=True)
        assert shard.read_bytes() == whole


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
