"""`hfgrow data`, as one types it."""

from pathlib import Path

import pytest

from tests.data.corpora import write_stories
from tests.program import Finished, call_hfgrow


def prepare(folder: Path, source: str, *more: str) -> Finished:
    words = ("data", "prepare", source, "--tokenizer", "demo", "--out", "tok", *more)
    return call_hfgrow(*words, cwd=folder)


def test_one_document_is_counted_as_one(tmp_path: Path) -> None:
    write_stories(tmp_path / "a.txt", 1)
    done = prepare(tmp_path, "a.txt")
    assert done.returncode == 0, done.stderr
    assert "tokens in 1 document, " in done.stderr
    write_stories(tmp_path / "a.txt", 2)
    assert "tokens in 2 documents, " in prepare(tmp_path, "a.txt", "--overwrite").stderr


def test_damage_that_only_a_hash_finds_is_mended_by_overwrite(tmp_path: Path) -> None:
    write_stories(tmp_path / "a.txt", 2)
    prepare(tmp_path, "a.txt")
    shard = tmp_path / "tok" / "tokens-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(b"\1\1" + whole[2:])
    found = call_hfgrow("data", "check", "tok", cwd=tmp_path)
    assert found.returncode == 8
    assert "Hint: prepare the text again with --overwrite" in found.stderr
    assert prepare(tmp_path, "a.txt", "--overwrite").returncode == 0
    assert shard.read_bytes() == whole


@pytest.mark.parametrize(("exists", "said"), [(False, "does not exist"), (True, "holds no")])
def test_a_folder_that_is_not_there_is_told_from_one_without_tokens(
    tmp_path: Path, exists: bool, said: str
) -> None:
    if exists:
        (tmp_path / "tok").mkdir()
    done = call_hfgrow("data", "check", "tok", cwd=tmp_path)
    assert done.returncode == 8
    assert f"Error: tok {said}" in done.stderr
    assert "Hint: hfgrow data prepare" in done.stderr


@pytest.mark.parametrize("source", ["text/nosuch", "nosuch/a.jsonl", "nosuch/a.txt.gz"])
def test_a_file_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path, source: str) -> None:
    (tmp_path / "text").mkdir()
    for done in (
        prepare(tmp_path, source),
        call_hfgrow("eval", "demo", "--text", source, cwd=tmp_path),
    ):
        assert done.returncode == 2
        assert f"Error: there is no file or folder {source}" in done.stderr
        assert f"as hf://datasets/{source}" in done.stderr


@pytest.mark.parametrize("source", ["text/nosuch", "hf://datasets/text/nosuch"])
def test_what_may_be_a_dataset_is_told_to_be_no_file_here_either(
    tmp_path: Path, source: str
) -> None:
    if source.startswith("hf://"):
        (tmp_path / "text").mkdir()
    done = prepare(tmp_path, source)
    assert done.returncode == 5
    assert "looking up the dataset text/nosuch (there is no such file here): " in done.stderr


def test_nul_characters_in_text_are_noted_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0" * 99 + b"\n\n\n\0")
    done = prepare(tmp_path, "a.txt")
    assert done.returncode == 0
    assert done.stderr.count("Note: a.txt holds NUL characters, so it may be no text") == 1


@pytest.mark.parametrize("split", ["train[:50%]", "train[50%:]"])
def test_a_part_of_a_split_is_not_prepared_whole(tmp_path: Path, split: str) -> None:
    """What is held out by parts would be trained on."""
    write_stories(tmp_path / "a.txt", 4)
    for source in ("a.txt", "demo"):
        done = prepare(tmp_path, source, "--split", split)
        assert done.returncode == 2
        assert f"Hint: --split train here, and split: {split} where a recipe" in done.stderr
    assert not (tmp_path / "tok").exists()


@pytest.mark.parametrize("words", [("--split", "test"), ("--name", "en")])
def test_a_file_has_no_splits_and_no_configurations(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_stories(tmp_path / "a.txt", 4)
    done = prepare(tmp_path, "a.txt", *words)
    assert done.returncode == 2
    assert words[1] in done.stderr


def test_what_ends_documents_is_told_and_what_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n<|endoftext|>\nTwo.\n")
    assert "Note: a.txt: <|endoftext|> ends a document" in prepare(tmp_path, "a.txt").stderr
    (tmp_path / "a.jsonl").write_text('{"text": "One <|endoftext|> two"}\n')
    done = prepare(tmp_path, "a.jsonl", "--overwrite")
    assert "a.jsonl holds <|endoftext|> inside documents" in done.stderr


def test_a_pair_named_as_megatron_does_is_told_which_file_to_name(tmp_path: Path) -> None:
    for ending in (".idx", ".bin"):
        (tmp_path / f"corpus_text_document{ending}").touch()
    done = prepare(tmp_path, "corpus_text_document")
    assert done.returncode == 2
    assert "Hint: name corpus_text_document.idx\n" in done.stderr


def test_a_file_that_cannot_be_read_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    done = prepare(tmp_path, "a.pdf")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: a.pdf is none of ")
