"""Parquet files and datasets of the Hub (H10, H12, H16); what needs `datasets` and has it not."""

from pathlib import Path
from typing import Any

import pytest

from hfgrow.data.documents import pinned, read_dataset
from hfgrow.data.sources import TextSource
from hfgrow.data.tokenizer import TextTokenizer
from hfgrow.errors import GrowthError, TrainingError, UsageError
from hfgrow.hub.client import HubClient
from tests.train.corpora import documents, prepared, story, write_rows


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
def test_parquet_without_text_is_refused(tmp_path: Path, encoder: TextTokenizer) -> None:
    pytest.importorskip("datasets")
    path = write_parquet(tmp_path / "a.parquet", id=[1, 2], content=["a", "b"])
    with pytest.raises(
        TrainingError, match="no column text; the columns are id, content"
    ) as caught:
        prepared(path, tmp_path / "out", encoder)
    assert caught.value.hint == "--text-column content"
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
    monkeypatch.setattr("hfgrow.data.documents.find_spec", lambda name: None)
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
