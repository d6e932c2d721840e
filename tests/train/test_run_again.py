"""A run that is begun again: what goes on, what begins anew, and what is refused.

A run goes on with another end as long as every step behind it would have been the same.
"""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.locks import held
from hfgrow.checkpoint.read import read
from hfgrow.errors import OutputError, TrainingError
from hfgrow.lineage.reading import read_manifest
from hfgrow.train.identity import is_same_so_far
from hfgrow.train.recipe.recipe import recipe_of
from tests.checkpoints import MakeCheckpoint, edit_json
from tests.train import runs

LONG = {"tokens": 1024, "learning_rate": 1e-2}
RECORDS = ("run.json", "recipe.yaml", "metrics.jsonl")


@pytest.mark.parametrize(
    "step", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_run_with_growth_resumes_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Also where the power fails between growth and the first step after it."""
    stages = runs.growing("copy")
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = runs.recipe(tmp_path / "whole", stages=stages)
    broken = runs.recipe(tmp_path / "broken", stages=stages)
    runs.carry(whole)
    runs.stop_after(monkeypatch, broken, step)
    runs.carry(broken, resume=True)
    assert runs.losses(broken) == runs.losses(whole)
    assert runs.weights(broken) == runs.weights(whole)
    measured = [
        [line for line in runs.lines(recipe) if "when" in line] for recipe in (broken, whole)
    ]
    assert measured[0] == measured[1], "each held-out loss is recorded once"


@pytest.mark.parametrize(
    "step", [2, *(pytest.param(step, marks=pytest.mark.slow) for step in (3, 4))]
)
def test_a_run_that_waits_for_a_plateau_resumes_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Inside the stage that waits, behind its end, and behind the growth after it."""
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    checkpoint = {"every_tokens": 256, "keep": 2}
    whole, broken = (
        runs.recipe(tmp_path / name, checkpoint=checkpoint, **runs.PLATEAU)
        for name in ("whole", "broken")
    )
    runs.carry(whole)
    runs.stop_after(monkeypatch, broken, step)
    runs.carry(broken, resume=True)
    assert runs.losses(broken) == runs.losses(whole)
    assert len(runs.losses(whole)) == 5
    assert runs.weights(broken) == runs.weights(whole)


def test_a_stage_that_ended_and_was_not_written_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, broken = (runs.recipe(tmp_path / name, **runs.PLATEAU) for name in ("whole", "broken"))
    runs.carry(whole)
    with monkeypatch.context() as patch:
        patch.setattr("hfgrow.train.stage_runner.export", powerless)
        with pytest.raises(OSError, match="the power failed"):
            runs.carry(broken)
    assert not list(Path(broken["output"], "stages").glob("00/*"))
    runs.carry(broken, resume=True)
    assert runs.losses(broken) == runs.losses(whole)
    assert runs.weights(broken) == runs.weights(whole)


def powerless(*_: object) -> None:
    raise OSError("the power failed")


def test_what_a_stage_waited_for_is_known_without_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, **runs.PLATEAU)
    recipe["stages"][1] = {"grow": {"operator": "zero-depth", "g": 2}}
    runs.stop_after(monkeypatch, recipe, 3)
    shutil.rmtree(Path(recipe["output"], "checkpoints"))
    runs.carry(recipe, resume=True)
    state = json.loads((runs.last_checkpoint(recipe) / "state.json").read_text())
    assert (state["position"]["step"], state["position"]["tokens"]) == (5, 1280)


def test_a_plateau_depends_on_when_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, **runs.PLATEAU)
    runs.stop_after(monkeypatch, recipe, 2)
    changed = {"evaluation": {"every_tokens": 512, "tokens": 512}}
    with pytest.raises(TrainingError, match=r"evaluation\.every_tokens was 256, is 512"):
        runs.carry(recipe | changed, resume=True)


def test_a_run_goes_on_by_the_recipe_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 5)
    runs.carry(yaml.safe_load(Path(recipe["output"], "recipe.yaml").read_text()), resume=True)
    assert len(runs.losses(recipe)) == 12


def test_an_output_that_holds_a_run_is_not_begun_again(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    runs.carry(recipe)
    with pytest.raises(OutputError, match="holds a run already") as caught:
        runs.carry(recipe)
    assert "add resume" in caught.value.hint


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    runs.carry(recipe)
    before = Path(recipe["output"], "metrics.jsonl").read_bytes()
    runs.carry(recipe, resume=True)
    assert Path(recipe["output"], "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("stages", "named"),
    [(runs.GROWN, "stages.1"), ([{"train": {**LONG, "learning_rate": 2e-2}}], "stages.0")],
)
def test_a_finished_run_is_not_extended_or_changed(
    tmp_path: Path, stages: list[dict[str, Any]], named: str
) -> None:
    recipe = runs.recipe(tmp_path, stages=[{"train": LONG}])
    runs.carry(recipe)
    before = {name: Path(recipe["output"], name).read_bytes() for name in RECORDS}
    with pytest.raises(TrainingError, match=f"the run is finished, and .*{named}") as caught:
        runs.carry(recipe | {"stages": stages}, resume=True)
    assert f"base: {recipe['output']}/final" in caught.value.hint
    assert before == {name: Path(recipe["output"], name).read_bytes() for name in RECORDS}


def test_a_model_that_was_trained_is_never_removed_for_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"tokens": 512, "learning_rate": 1e-2}
    recipe = runs.recipe(tmp_path, stages=[{"train": train}] * 3)
    runs.stop_after(monkeypatch, recipe, 5)
    shutil.rmtree(Path(recipe["output"], "checkpoints"))
    changed = [{"train": train}, {"train": {**train, "learning_rate": 2e-2}}, {"train": train}]
    with pytest.raises(TrainingError, match=r"stages\.1\.train\.learning_rate was"):
        runs.carry(recipe | {"stages": changed}, resume=True)
    assert list(Path(recipe["output"], "stages", "01").iterdir())


def test_a_run_that_saved_nothing_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, seed=8)
    runs.stop_after(monkeypatch, recipe, 1)
    assert Path(recipe["output"], "run.json").exists()
    recipe |= {"seed": 9}
    runs.carry(recipe)
    assert len(runs.losses(recipe)) == 12


def test_trained_models_are_gone_on_with_where_the_checkpoints_were_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, stages=runs.GROWN)
    runs.stop_after(monkeypatch, recipe, 5)
    before = runs.losses(recipe)[:4]
    shutil.rmtree(Path(recipe["output"], "checkpoints"))
    with pytest.raises(OutputError, match="holds a run already"):
        runs.carry(recipe)
    manifest = read_manifest(runs.carry(recipe, resume=True))
    assert runs.losses(recipe)[:4] == before, "the record of the first stage stays"
    assert len(runs.losses(recipe)) == 8
    state = json.loads((runs.last_checkpoint(recipe) / "state.json").read_text())
    assert state["position"]["tokens"] == 2048, "the first stage is not trained again"
    assert manifest is not None
    assert manifest.trainings[-1].evaluations[0].before_growth is not None


def test_a_stage_that_was_not_reached_may_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, stages=runs.GROWN)
    runs.stop_after(monkeypatch, recipe, 3)
    stages = [runs.GROWN[0], {"grow": {"operator": "stack", "g": 3}}, runs.GROWN[2]]
    final = runs.carry(recipe | {"stages": stages}, resume=True)
    assert read(LocalFolder(final)).num_hidden_layers == 6


def test_a_growth_that_was_not_trained_on_may_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in what the name of its folder does not say."""
    first, second = (runs.growing("reset", operator="random-depth", seed=seed) for seed in (1, 2))
    recipe = runs.recipe(tmp_path, stages=first)
    runs.stop_after(monkeypatch, recipe, 4)
    (grown,) = Path(recipe["output"], "stages", "01").iterdir()
    before = sha256((grown / "model.safetensors").read_bytes()).digest()
    runs.carry(recipe | {"stages": second}, resume=True, quiet=False)
    assert f"removed stages/01/{grown.name}" in capsys.readouterr().err
    after = sha256((grown / "model.safetensors").read_bytes()).digest()
    assert before != after
    assert len([line for line in runs.lines(recipe) if "growth" in line]) == 1


@pytest.mark.parametrize("name", ["recipe.yaml", "stages"])
def test_an_output_that_holds_what_a_run_would_overwrite_is_left_alone(
    tmp_path: Path, name: str
) -> None:
    recipe = runs.recipe(tmp_path)
    mine = Path(recipe["output"], name)
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(OutputError, match="no folder of a run"):
        runs.carry(recipe)
    assert mine.read_text() == "mine"


def test_an_output_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    Path(recipe["output"]).mkdir()
    Path(recipe["output"], "thesis.tex").write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match="no folder of a run"):
            runs.carry(recipe, resume=resume)


def test_a_base_that_changed_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(runs.carry(runs.recipe(tmp_path)), base)
    (tmp_path / "two").mkdir()
    recipe = runs.recipe(tmp_path / "two", base=str(base), tokenizer=None)
    runs.stop_after(monkeypatch, recipe, 3)
    tensors = load_file(base / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in tensors.items()},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(TrainingError, match=r"the base's model\.safetensors has changed since"):
        runs.carry(recipe, resume=True)


def test_a_run_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    asked = runs.recipe(tmp_path)
    with (
        held(Path(asked["output"]), hint=""),
        pytest.raises(OutputError, match="another run is writing"),
    ):
        runs.carry(asked)
    assert list(Path(asked["output"]).iterdir()) == []


@pytest.mark.case("H4")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, ".*seed was 4, is 3"),
        ({"optimizer": {"name": "muon"}}, "optimizer.*"),
    ],
    ids=["seed", "optimizer"],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    mine = runs.recipe(tmp_path)
    (tmp_path / "two").mkdir()
    other = runs.recipe(tmp_path / "two", **changes)
    runs.stop_after(monkeypatch, mine, 3)
    runs.stop_after(monkeypatch, other, 5)
    theirs = runs.last_checkpoint(other)
    shutil.copytree(theirs, Path(mine["output"], "checkpoints", theirs.name))
    with pytest.raises(TrainingError, match=f"{theirs.name} is of another run: {said}") as caught:
        runs.carry(mine, resume=True)
    assert caught.value.hint.startswith("move it somewhere else; the run then goes on from the one")


@pytest.fixture
def small(tmp_path: Path, make_checkpoint: MakeCheckpoint) -> Path:
    """A model that the test may change."""
    return Path(shutil.copytree(make_checkpoint("llama", vocab_size=2048), tmp_path / "base"))


def test_base_and_text_may_lie_elsewhere_as_long_as_their_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    recipe = runs.recipe(tmp_path, base=str(small))
    runs.stop_after(monkeypatch, recipe, 3)
    before, moved = runs.losses(recipe)[:2], tmp_path / "moved"
    moved.mkdir()
    small.rename(moved / "model")
    (tmp_path / "text.txt").rename(moved / "mine.txt")
    source, data = str(moved / "mine.txt"), recipe["data"]
    data = {
        key: [part | {"path": source} for part in value] if isinstance(value, list) else value
        for key, value in data.items()
    }
    runs.carry(recipe | {"base": str(moved / "model"), "data": data}, resume=True)
    assert (runs.losses(recipe)[:2], len(runs.losses(recipe))) == (before, 12)


def test_another_config_beside_the_same_weights_is_another_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    recipe = runs.recipe(tmp_path, base=str(small))
    runs.stop_after(monkeypatch, recipe, 3)
    edit_json(small / "config.json", rms_norm_eps=1e-3)
    with pytest.raises(TrainingError, match=r"the base's config\.json has changed since"):
        runs.carry(recipe, resume=True)


def test_tokens_damaged_in_place_are_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 3)
    (shard,) = Path(recipe["output"]).glob("tokens/*/tokens-00000.bin")
    whole = shard.read_bytes()
    shard.write_bytes(bytes(len(whole)))
    runs.carry(recipe, resume=True, quiet=False)
    assert "is damaged: its sha256 is" in capsys.readouterr().err
    assert shard.read_bytes() == whole


def test_prepared_tokens_damaged_in_place_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 0)
    (tokens,) = Path(recipe["output"]).glob("tokens/*")
    shard = tokens / "tokens-00000.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    (tmp_path / "two").mkdir()
    data = {"train": [{"path": str(tokens)}], "sequence_length": 32}
    with pytest.raises(TrainingError, match=r"tokens-00000\.bin is damaged: its sha256 is"):
        runs.carry(runs.recipe(tmp_path / "two", data=data))


def test_tokens_are_not_written_into_the_folder_of_somebody_by_a_link(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("mine")
    Path(recipe["output"]).mkdir()
    Path(recipe["output"], "tokens").symlink_to(theirs)
    with pytest.raises(OutputError, match=r"is a link to .*/theirs, which holds thesis\.tex"):
        runs.carry(recipe)
    assert [path.name for path in theirs.iterdir()] == ["thesis.tex"]


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
@pytest.mark.parametrize(
    ("begun", "gone_on", "is_same"),
    [(0.5, 0.5, False), (0.5, 50_000, True), (50_000, 50_000, True), (None, 1000, False)],
    ids=["a share of more", "as many tokens", "tokens", "of its own since"],
)
def test_a_stage_is_extended_only_where_what_is_new_would_have_warmed_up_as_it_did(
    tmp_path: Path, begun: float | None, gone_on: float, is_same: bool
) -> None:
    """Forty steps, all of them in the warmup of 50,000 tokens."""
    of = {"learning_rate": 1e-2, "warmup": 1000, "decay": 10_000}
    before, now = (
        recipe_of(
            runs.recipe(
                tmp_path,
                stages=[
                    {"grow": {"operator": "zero-depth", "g": 2}},
                    {"train": {**of, "tokens": tokens, "new_warmup": span}},
                ],
            )
        )
        for tokens, span in ((100_000, begun), (200_000, gone_on))
    )
    assert is_same_so_far(before.identity(), now, 1, 40) is is_same


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
