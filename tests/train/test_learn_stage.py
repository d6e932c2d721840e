"""Growth by learned maps as a stage of a run: learned from the text of the run."""

from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import UsageError
from hfgrow.lineage.ledger import ledger
from hfgrow.lineage.read import read_manifest
from hfgrow.train.recipe.recipe import recipe_of
from tests.train import runs

LEARN: dict[str, Any] = {"operator": "learn", "g": 2, "init": "stack", "steps": 4}


def learning(folder: Path, **learn: Any) -> dict[str, Any]:
    return runs.recipe(folder, stages=[runs.GROWN[0], {"grow": LEARN | learn}, runs.GROWN[2]])


def test_a_stage_learns_its_maps_from_the_text_of_the_run(tmp_path: Path) -> None:
    recipe = learning(tmp_path)
    final = runs.carry(recipe)
    manifest = read_manifest(final)
    assert manifest is not None
    growth = manifest.last_growth
    assert growth is not None
    told = growth.steps[0].arguments
    assert (told["text"], told["steps"], told["batch_tokens"]) == ("text.txt", 4, 256)
    assert (told["seed"], told["sequence_length"]) == (recipe["seed"], 32)
    assert float(str(told["loss"])) < float(str(told["initial_loss"]))
    assert growth.result.num_hidden_layers == 4
    assert not Path(recipe["output"], "stages", "maps").exists()


def test_the_tokens_of_the_maps_are_in_the_ledger(tmp_path: Path) -> None:
    manifest = read_manifest(runs.carry(learning(tmp_path)))
    assert manifest is not None
    growth = next(entry for entry in ledger(manifest).entries if entry.kind == "growth")
    assert growth.tokens == 4 * 256
    assert growth.flops == 6 * growth.num_parameters * 4 * 256
    assert growth.exact_flops is not None
    assert growth.exact_flops > 0
    assert growth.device_seconds is not None


def test_a_run_that_was_cut_off_after_learning_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        recipe = learning(tmp_path / name)
        if name == "cut":
            runs.stop_after(monkeypatch, recipe, 5)
        runs.carry(recipe, resume=name == "cut")
        found.append(runs.weights(recipe))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("learn", "said"),
    [
        ({"maps": "x.safetensors"}, "maps"),
        ({"sequence_length": 32}, "sequence_length"),
        ({"loss": 1.0}, "loss"),
        ({"steps": "many"}, "steps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_stage_cannot_be_told_is_refused(
    tmp_path: Path, learn: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        recipe_of(learning(tmp_path, **learn))


@pytest.mark.parametrize(
    ("learn", "said"), [({"init": "best"}, "init"), ({"lr": 2.0}, "lr")], ids=["init", "lr"]
)
def test_what_cannot_be_learned_is_refused_before_anything_is_trained(
    tmp_path: Path, learn: dict[str, Any], said: str
) -> None:
    recipe = learning(tmp_path, **learn)
    with pytest.raises(UsageError, match=said):
        runs.carry(recipe)
    assert runs.losses(recipe) == []
