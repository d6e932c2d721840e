"""What may go once a run is finished, and what stays."""

from pathlib import Path

import pytest

from hfgrow.errors import UsageError
from hfgrow.train.clean import clean
from hfgrow.train.run_folder import RunFolder
from tests.program import call_hfgrow
from tests.train.runs import GROWN, carry, recipe, stop_after, weights


def test_a_finished_run_keeps_its_model_its_record_and_its_recipe(tmp_path: Path) -> None:
    asked = recipe(tmp_path, stages=GROWN)
    carry(asked)
    run, before = Path(asked["output"]), weights(asked)
    would = call_hfgrow("clean", run, "--dry-run")
    assert "would be removed" in would.stdout
    assert (run / "checkpoints").is_dir()
    done = call_hfgrow("clean", run)
    assert done.returncode == 0
    left = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert left == {"final", "metrics.jsonl", "recipe.yaml", "run.json"}
    assert weights(asked) == before
    # What is gone is not missed.
    assert carry(asked, resume=True) == run / "final"
    assert weights(asked) == before


def test_what_is_to_be_kept_stays(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    carry(asked)
    done = clean(Path(asked["output"]), keep=frozenset({"tokens"}))
    assert set(done.kinds) == {"checkpoints", "stages"}
    assert RunFolder(Path(asked["output"])).tokens.is_dir()


def test_a_run_that_is_not_finished_keeps_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path)
    stop_after(monkeypatch, asked, 5)
    with pytest.raises(UsageError, match="not finished"):
        clean(Path(asked["output"]))
    assert list(RunFolder(Path(asked["output"])).checkpoints.iterdir())


def test_what_a_killed_growth_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".big.hfgrow-staging").mkdir()
    (tmp_path / ".big.hfgrow-staging" / "model.safetensors").touch()
    (tmp_path / ".big.hfgrow-lock").touch()
    (tmp_path / "mine").mkdir()
    would = call_hfgrow("clean", ".", "--dry-run", cwd=tmp_path)
    assert ".big.hfgrow-staging" in would.stdout
    assert (tmp_path / ".big.hfgrow-staging").is_dir()
    done = call_hfgrow("clean", ".", cwd=tmp_path)
    assert ".big.hfgrow-staging" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert "there is nothing to remove" in call_hfgrow("clean", ".", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model", r"model holds a model and is no folder of a run$"),
        ("nosuch", r"^there is no folder .*nosuch$"),
    ],
)
def test_what_is_no_folder_of_a_run_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    with pytest.raises(UsageError, match=said) as caught:
        clean(tmp_path / name)
    assert "name the output of a run" in caught.value.hint
