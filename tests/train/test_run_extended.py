"""A run goes on with another end as long as every step behind it would have been the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgrow.errors import TrainingError
from tests.train import runs

# Twelve steps: one of warmup, the last four of decay.
TRAIN: dict[str, Any] = {"tokens": 3072, "learning_rate": 1e-2, "warmup": 256, "decay": 1024}


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return runs.recipe(folder, stages=[{"train": TRAIN | changes}])


def test_a_stage_is_extended_from_before_its_decay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = recipe(tmp_path / "short"), recipe(tmp_path / "long", tokens=5120)
    runs.stop_after(monkeypatch, short, 6)
    runs.carry(short | {"stages": long["stages"]}, resume=True)
    runs.carry(long)
    assert runs.losses(short) == runs.losses(long)
    assert runs.weights(short) == runs.weights(long)


@pytest.mark.case("H4")
@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (11, {"tokens": 5120}),
        (6, {"warmup": 512}),
        (6, {"tokens": 1024, "decay": 512}),
        (6, {"decay": 0.9}),
    ],
    ids=["in the decay", "another warmup", "shorter than it is", "a decay that would have begun"],
)
def test_steps_that_would_have_been_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, changes: dict[str, Any]
) -> None:
    begun = recipe(tmp_path / "run")
    runs.stop_after(monkeypatch, begun, step)
    with pytest.raises(TrainingError, match=r"stages\.0\.train") as caught:
        runs.carry(begun | {"stages": recipe(tmp_path / "run", **changes)["stages"]}, resume=True)
    assert "a decay that has not begun, a warmup in tokens" in caught.value.hint


@pytest.mark.case("H4")
def test_the_record_of_the_run_decides_and_not_a_recipe_that_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever edits OUTPUT/recipe.yaml and goes on with it has changed what it was begun with."""
    begun = recipe(tmp_path / "run")
    runs.stop_after(monkeypatch, begun, 11)
    other = begun | {"stages": recipe(tmp_path / "run", tokens=5120, warmup=2048)["stages"]}
    Path(begun["output"], "recipe.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(TrainingError, match=r"stages\.0\.train"):
        runs.carry(other, resume=True)


@pytest.mark.case("H4")
def test_a_stage_that_is_trained_to_its_end_is_not_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model after it lies in stages already."""
    constant = {"tokens": 3072, "learning_rate": 1e-2, "schedule": "constant"}
    stages = [{"train": constant}, {"grow": {"operator": "stack", "g": 2}}, {"train": constant}]
    begun = runs.recipe(tmp_path, stages=stages)
    runs.stop_after(monkeypatch, begun, 12)
    longer = [{"train": constant | {"tokens": 5120}}, *stages[1:]]
    with pytest.raises(TrainingError, match=r"stages\.0\.train\.tokens"):
        runs.carry(begun | {"stages": longer}, resume=True)


@pytest.mark.case("H4")
def test_a_difference_that_says_why_is_told_without_the_hash_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = recipe(tmp_path / "run")
    runs.stop_after(monkeypatch, begun, 5)
    with pytest.raises(TrainingError) as caught:
        runs.carry(begun | {"seed": 4}, resume=True)
    assert str(caught.value) == "the run was begun with something else: seed was 3, is 4"


def test_how_often_held_out_text_is_measured_is_free_where_it_changes_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, begun = recipe(tmp_path / "whole"), recipe(tmp_path / "run")
    runs.stop_after(monkeypatch, begun, 5)
    often = {**begun["evaluation"], "every_tokens": 256}
    runs.carry(begun | {"evaluation": often}, resume=True)
    runs.carry(whole)
    assert runs.weights(begun) == runs.weights(whole)


@pytest.mark.case("H4")
def test_the_mean_of_schedule_free_depends_on_where_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = recipe(tmp_path / "run", schedule="constant", decay=None)
    begun |= {"optimizer": {"name": "schedule_free_adamw"}}
    runs.stop_after(monkeypatch, begun, 5)
    often = {**begun["evaluation"], "every_tokens": 256}
    with pytest.raises(TrainingError, match=r"evaluation\.every_tokens"):
        runs.carry(begun | {"evaluation": often}, resume=True)
