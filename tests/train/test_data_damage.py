"""Prepared tokens that somebody damaged."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from hfgrow.data.prepare import prepare
from hfgrow.data.sources import TextSource
from hfgrow.data.token_folder import TokenFiles
from hfgrow.data.tokenizer import TextTokenizer
from hfgrow.errors import TrainingError
from tests.train.corpora import VOCAB_SIZE, prepared, write_stories


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
        assert f"--overwrite, or remove {out} first" in caught.value.hint
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
