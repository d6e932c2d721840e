"""The folder of a run where that of a model is wanted."""

import shutil
from pathlib import Path

import pytest

import hfgrow
from hfgrow.hub.resolve import parse
from tests.program import call_hfgrow

DEMO = Path(hfgrow.__file__).parent / "demo"
COMMANDS = (
    ("stack", "out/k", "--g", "2"),
    ("eval", "out/k", "--text", "demo"),
    ("inspect", "./out/k"),
    ("verify", "out/k"),
    ("push", "out/k"),
    ("card", "out/k"),
    ("lineage", "out/k"),
    ("reproduce", "out/k"),
    ("data", "prepare", "demo", "--tokenizer", "out/k", "--out", "tok"),
)


def run_folder(folder: Path, *, is_finished: bool) -> None:
    run = folder / "out" / "k"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}\n")
    (run / "recipe.yaml").write_text("base: demo\n")
    if is_finished:
        shutil.copytree(DEMO, run / "final")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_the_folder_of_a_run_names_its_model(tmp_path: Path, words: tuple[str, ...]) -> None:
    run_folder(tmp_path, is_finished=True)
    done = call_hfgrow(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "out/k is the folder of a run; its model is out/k/final\n" in done.stderr


def test_a_run_that_is_not_finished_says_how_it_goes_on(tmp_path: Path) -> None:
    run_folder(tmp_path, is_finished=False)
    done = call_hfgrow("eval", "out/k", "--text", "demo", cwd=tmp_path)
    assert done.returncode == 2
    assert "out/k is the folder of a run that is not finished" in done.stderr
    assert "Hint: hfgrow train out/k/recipe.yaml --resume\n" in done.stderr


def test_an_alias_is_not_taken_for_a_run_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "run.json").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    assert parse("demo").alias == "demo"
