"""Files of a run that somebody damaged: each is named, and nothing is taken for what it is not."""

import json
from pathlib import Path

import pytest

from hfgrow.console import Silent
from hfgrow.errors import OutputError, TrainingError
from hfgrow.train.checkpoints import latest_checkpoint, save_checkpoint
from hfgrow.train.metrics import Position, read_metrics
from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.run_folder import RunFolder
from tests.train import runs

DEEP = "[" * 100_000


@pytest.mark.parametrize("line", ["5", "{}", DEEP, "\\xff", '{"stage": "0", "step": 1}'])
def test_a_damaged_line_ends_the_record(tmp_path: Path, line: str) -> None:
    good = {"stage": 0, "step": 1, "loss": 2.0}
    raw = f"{json.dumps(good)}\n".encode()
    (tmp_path / "metrics.jsonl").write_bytes(raw + line.encode("latin1") + b"\n" + raw)
    assert read_metrics(tmp_path) == [good]


@pytest.mark.parametrize("text", ["[]", "5", DEEP, ""])
def test_a_damaged_record_of_what_was_begun_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(TrainingError, match=r"run\.json") as caught:
        RunFolder(tmp_path).check(
            {},
            recipe_of(runs.recipe(tmp_path)),
            stage=0,
            stage_steps=0,
            allow_world_change=False,
        )
    assert caught.value.hint == "choose another output"


@pytest.mark.parametrize("text", ["[]", DEEP, '{"files": []}'])
def test_a_damaged_manifest_makes_no_checkpoint(tmp_path: Path, text: str) -> None:
    folder = save_checkpoint(tmp_path, 3, {}, {"a": 1}, keep=1)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(TrainingError, match="no checkpoint of the run is whole"):
        latest_checkpoint(tmp_path, Silent())


@pytest.mark.parametrize(
    "change", [{"step": -1}, {"step": "3"}, {"stage": True}, {"evaluations": [3]}], ids=str
)
def test_a_position_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    content = Position().to_json()
    assert Position.of_json(content) == Position()
    with pytest.raises(TrainingError, match="damaged"):
        Position.of_json(content | change)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_model_is_not_taken_for_the_finished_one(tmp_path: Path, kind: str) -> None:
    run = RunFolder(tmp_path)
    assert not run.is_finished
    if kind == "file":
        run.final.touch()
    else:
        run.final.mkdir()
    with pytest.raises(TrainingError, match="is not the finished model"):
        assert run.is_finished


def test_an_output_in_the_base_is_refused_and_nothing_written(base: Path, tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, base=str(base), output=str(base / "run"))
    before = sorted(base.iterdir())
    with pytest.raises(OutputError, match="must be apart"):
        runs.carry(recipe)
    assert sorted(base.iterdir()) == before


def test_a_record_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    Path(recipe["output"]).mkdir()
    (Path(recipe["output"]) / "metrics.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="is no folder of a run"):
        runs.carry(recipe)
    assert (Path(recipe["output"]) / "metrics.jsonl").read_text() == "mine"
