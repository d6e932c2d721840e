"""A trained model is made again from what lies beside it, in its folder and in its repository."""

import os
from pathlib import Path

import pytest
import yaml

from hfgrow.hub.listing import ModelRef
from hfgrow.train.again import portable_recipe
from hfgrow.train.recipe.recipe import load_recipe, recipe_of
from tests.checkpoints import MakeCheckpoint
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING, talk_here
from tests.hub_server.machine import Machine
from tests.program import call_hfgrow
from tests.train import runs
from tests.train.runs import GROWN, carry, recipe, weights

SHA = "a" * 40


def shown(folder: Path) -> str:
    """Return the recipe that the card shows."""
    card = (folder / "README.md").read_text()
    return card.partition("```yaml\n")[2].partition("\n```\n\n</details>")[0] + "\n"


def pushed_files(hub: Hub) -> list[str]:
    """Return what lies in the repository of the run."""
    return list(hub.files("alice/run"))


@pytest.mark.parametrize("last", ["train", "grow"])
def test_the_recipe_lies_beside_the_model_and_in_its_card(tmp_path: Path, last: str) -> None:
    final = carry(recipe(tmp_path, stages=GROWN if last == "train" else GROWN[:2]))
    beside = (final / "recipe.yaml").read_text()
    assert shown(final) == beside
    load_recipe(final / "recipe.yaml")
    assert "hfgrow train . --set output=../again" in (final / "README.md").read_text()


def test_the_recipe_makes_the_same_weights_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path, stages=GROWN)
    final = carry(asked)
    monkeypatch.chdir(tmp_path)
    again = load_recipe(final / "recipe.yaml", ["output=again"]).model_dump(mode="json")
    assert carry(again).parent == Path("again")
    assert weights(again) == weights(asked)


@pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)
def test_a_pushed_model_has_a_recipe_by_its_name_that_makes_the_same_weights(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path, stages=GROWN)
    final = carry(asked)
    talk_here(hub, monkeypatch, token=ALICE)
    pushed = call_hfgrow("push", final)
    assert pushed.returncode == 0, pushed.stderr
    (place := tmp_path / "place").mkdir()
    monkeypatch.chdir(place)
    os.link(tmp_path / "text.txt", place / "text.txt")
    named = call_hfgrow("train", "alice/run", "--cpu", "--dry-run", "--yaml")
    assert named.returncode == 0, named.stderr
    carry(yaml.safe_load(named.stdout))
    assert weights({"output": "run"}) == weights(asked)


@pytest.mark.slow
def test_a_pushed_model_is_made_again_by_its_name(hub_server: Hub, tmp_path: Path) -> None:
    asked = recipe(tmp_path, stages=GROWN)
    final = carry(asked)
    machine = Machine(hub_server, tmp_path / "home")
    pushed = machine.hfgrow("push", str(final))
    assert pushed.returncode == 0, pushed.stderr
    assert "hfgrow train alice/run\n" in (final / "README.md").read_text()
    assert set(pushed_files(hub_server)) >= {"README.md", "recipe.yaml", "model.safetensors"}
    os.link(tmp_path / "text.txt", machine.cwd / "text.txt")
    done = machine.hfgrow("train", "alice/run", "--cpu")
    assert done.returncode == 0, done.stderr
    assert weights({"output": str(machine.cwd / "run")}) == weights(asked)


def test_nothing_of_this_machine_is_in_a_recipe_for_others(tmp_path: Path) -> None:
    asked = recipe(tmp_path, base="org/base", push={"repo": "me/secret"}, trackers=["wandb"])
    asked["tokenizer"] = "/home/alice/tokenizer"
    text = portable_recipe(recipe_of(asked), ModelRef("org/base", repo_id="org/base", revision=SHA))
    assert str(tmp_path) not in text
    assert "alice" not in text
    assert "secret" not in text
    content = yaml.safe_load(text)
    assert content["base"] == f"hf://org/base@{SHA}"
    assert content["output"] == "run"
    assert content["data"]["train"][0]["path"] == "./text.txt"
    assert "trackers" not in content


def test_a_run_is_named_by_its_folder(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    carry(asked)
    done = call_hfgrow("train", asked["output"], "--cpu")
    assert done.returncode == 7
    assert "holds a run already" in done.stderr


def test_a_model_without_a_recipe_is_refused(tmp_path: Path) -> None:
    call_hfgrow("stack", "demo", "--g", "2", "--out", tmp_path / "grown", "--quiet")
    done = call_hfgrow("train", f"{tmp_path}/grown", "--cpu")
    assert done.returncode == 2
    assert "grown is a model without a recipe.yaml: hfgrow did not train it" in done.stderr
    assert f"--set base={tmp_path}/grown; hfgrow lineage" in done.stderr


def test_a_recipe_cannot_end_its_fence(tmp_path: Path) -> None:
    final = carry(recipe(tmp_path))
    written = (final / "recipe.yaml").read_text()
    (final / "recipe.yaml").write_text(written + "# ```\n# </details>\n# <script>\n")
    assert call_hfgrow("card", final).returncode == 0
    card = (final / "README.md").read_text()
    assert card.count("````") == 2
    assert card.index("<script>") < card.rindex("````")


def test_a_run_whose_base_moved_on_goes_on_from_the_commit_that_it_began_with(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    make_checkpoint: MakeCheckpoint,
) -> None:
    talk_here(hub, monkeypatch, token=ALICE)
    small = make_checkpoint("llama", vocab_size=2048)
    files = {path.name: path.read_bytes() for path in small.iterdir()}
    first = hub.seed("alice/base", files)
    recipe = runs.recipe(tmp_path, base="alice/base")
    runs.stop_after(monkeypatch, recipe, 3)
    other = files["config.json"].replace(b"1e-06", b"1e-05")
    assert other != files["config.json"]
    hub.seed("alice/base", {"config.json": other})
    runs.carry(recipe, resume=True, quiet=False)
    assert f"alice/base -> alice/base @ {first[:12]}, as it began" in capfd.readouterr().err
    assert len(runs.losses(recipe)) == 12
