"""What preparing text writes, when it writes again, and over what it never does."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hfgrow.data.prepare import prepare
from hfgrow.data.sources import TextSource
from hfgrow.data.token_folder import TokenFiles
from hfgrow.data.tokenizer import TextTokenizer
from hfgrow.errors import OutputError, TrainingError
from tests.train.corpora import VOCAB_SIZE, documents, expected, prepared, story, write_stories


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
