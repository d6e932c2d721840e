"""A dry run says what a recipe costs, and refuses what the run itself would refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from hfgrow.console import Silent
from hfgrow.errors import GrowthError
from hfgrow.hub.client import HubClient
from hfgrow.train import dry_run
from hfgrow.train.dry_run import dry_run_lines
from hfgrow.train.recipe.recipe import recipe_of
from tests.train import runs


def planned(recipe: dict[str, Any], *, resume: bool = False) -> list[str]:
    return list(dry_run_lines(recipe_of(recipe), HubClient(), Silent(), resume=resume))


def changed(folder: Path, **changes: Any) -> dict[str, Any]:
    recipe = runs.recipe(folder)
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner: Any = recipe
        for key in parents:
            inner = inner[int(key) if key.isdecimal() else key]
        inner[last] = value
    return recipe


def test_a_fresh_model_is_planned_with_what_its_stages_cost(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, stages=runs.GROWN)
    lines = planned(recipe)
    assert "train 2 layers" in lines[1]
    assert "grow by zero-depth --g 2 to 4 layers" in lines[2]
    assert "train 4 layers" in lines[3]
    assert not list(tmp_path.glob("run"))


def test_the_flops_and_the_checkpoint_are_those_of_the_run(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, stages=runs.GROWN)
    lines = planned(recipe)
    final = runs.carry(recipe)
    chain = json.loads((final / "hfgrow.json").read_text())["chain"]
    costs = [one["compute"]["exact_flops"] for one in chain if "compute" in one]
    assert len(costs) == 2
    for line, cost in zip((lines[1], lines[3]), costs, strict=True):
        assert line.endswith(f"{cost:.3g} FLOPs")
    checkpoint = runs.last_checkpoint(recipe)
    files = [path for path in checkpoint.iterdir() if path.suffix == ".safetensors"]
    needs = dry_run.needs_of(recipe_of(recipe), needs_models(recipe))
    taken = sum(path.stat().st_size for path in files)
    assert needs.checkpoint_nbytes == pytest.approx(taken, rel=0.1)


def needs_models(recipe: dict[str, Any]) -> Any:
    from hfgrow.train.dry_run import plan_recipe

    return plan_recipe(recipe_of(recipe), HubClient(), Silent())


def test_a_growth_that_learns_is_charged_too(tmp_path: Path) -> None:
    learn = {"grow": {"operator": "learn", "g": 2, "steps": 3}}
    recipe = runs.recipe(tmp_path, stages=[runs.GROWN[0], learn, runs.GROWN[2]])
    lines = planned(recipe)
    flops = [float(line.rpartition("; ")[2].removesuffix(" FLOPs")) for line in lines[1:4]]
    assert float(lines[4].split()[2]) == pytest.approx(sum(flops), rel=0.01)
    assert flops[1] == pytest.approx(3 / 4 * flops[2], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"data__train__0__path": "nowhere.txt"}, 2, "there is no file or folder nowhere.txt"),
        ({"data__validation__0__path": "*.none"}, 2, "holds none of"),
        ({"data__train__0__split": "test"}, 2, "has no split test"),
        ({"base__config__hidden_size": 17}, 2, "transformers refuses it"),
        ({"trackers": ["wandb"]}, 2, "wandb is not installed"),
        ({"base__config__num_atention_heads": 2}, 2, "num_atention_heads is unknown to llama"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_the_run_would_refuse_is_refused(
    tmp_path: Path, changes: dict[str, Any], code: int, said: str
) -> None:
    with pytest.raises(GrowthError, match=said.replace("*", r"\*")) as caught:
        planned(changed(tmp_path, **changes))
    assert caught.value.exit_code == code


def test_a_typo_in_a_config_gets_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(GrowthError) as caught:
        planned(changed(tmp_path, base__config__num_atention_heads=2))
    assert caught.value.hint == "did you mean num_attention_heads?"


def test_an_output_that_would_stop_the_run_is_told(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    runs.carry(recipe)
    note = "Note: the run itself would stop here: "
    assert any(line.startswith(note) and "holds a run already" in line for line in planned(recipe))
    assert not any(line.startswith(note) for line in planned(recipe, resume=True))
    (tmp_path / "file").touch()
    lines = planned(recipe | {"output": str(tmp_path / "file")})
    assert any("is no folder of a run" in line for line in lines)


def test_a_disk_that_is_too_small_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
    assert planned(runs.recipe(tmp_path))[-1].endswith("of disk, and 1 kB are free")
