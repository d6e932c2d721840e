"""Faults of a run that begin in its files and numbers: group H of the catalogue.

Files of a run that somebody damaged: each is named, and nothing is taken for what it is not.
"""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.errors import GrowthError, ModelError, OutputError, TrainingError, UsageError
from hfgrow.lineage.reading import read_manifest
from hfgrow.train.checkpoints import latest_checkpoint, save_checkpoint
from hfgrow.train.metrics import Position, read_metrics
from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.run_folder import RunFolder
from tests.checkpoints import MakeCheckpoint
from tests.train import runs


def break_gradients(monkeypatch: pytest.MonkeyPatch, steps: range, norm: float) -> None:
    """Let the norm of the gradient be no number in some steps."""
    from hfgrow.train import devices, loop

    clip = devices.clip_gradients
    taken = iter(range(1000))

    def broken(parameters: list[Any], most: float | None) -> float:
        return norm if next(taken) in steps else clip(parameters, most)

    monkeypatch.setattr(loop, "clip_gradients", broken)


@pytest.mark.case("H1")
@pytest.mark.parametrize(
    ("file", "case"),
    [
        # Every file and every damage once; the other pairs with the slow tests.
        pytest.param(file, case, marks=() if i == j else pytest.mark.slow)
        for i, file in enumerate(("model.safetensors", "optimizer.safetensors", "state.json"))
        for j, case in enumerate(("truncated", "missing", "flipped"))
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, case: str
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 5)
    before = runs.losses(recipe)
    path = runs.last_checkpoint(recipe) / file
    content = bytearray(path.read_bytes())
    if case == "missing":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content[:-1] if case == "truncated" else content)
    runs.carry(recipe, resume=True)
    assert runs.losses(recipe)[:5] == before, "it went on from the checkpoint at step 2"


@pytest.mark.case("H1")
def test_a_run_whose_only_checkpoint_is_damaged_does_not_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, checkpoint={"every_tokens": 512, "keep": 1})
    runs.stop_after(monkeypatch, recipe, 5)
    (runs.last_checkpoint(recipe) / "state.json").unlink()
    before = runs.losses(recipe)
    with pytest.raises(TrainingError, match=r"no checkpoint .* lacks state\.json"):
        runs.carry(recipe, resume=True)
    assert runs.losses(recipe) == before
    assert runs.last_checkpoint(recipe).is_dir()


@pytest.mark.case("H2")
def test_a_checkpoint_without_a_manifest_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 5)
    (runs.last_checkpoint(recipe) / "manifest.json").unlink()
    runs.carry(recipe, resume=True)
    assert len(runs.losses(recipe)) == 12


@pytest.mark.case("H3")
def test_a_pickle_in_a_checkpoint_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 5)
    witness = tmp_path / "witness"
    code = f"cbuiltins\neval\n(Vopen({str(witness)!r}, 'w')\ntR."
    for name in ("custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl"):
        (runs.last_checkpoint(recipe) / name).write_text(code)
    runs.carry(recipe, resume=True)
    assert not witness.exists()


@pytest.mark.case("H4")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"batch_tokens": 512}, "batch_tokens was 256, is 512"),
    ],
)
def test_a_run_goes_on_with_nothing_but_its_own_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], named: str
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 5)
    with pytest.raises(TrainingError, match=named):
        runs.carry(recipe | change, resume=True)


@pytest.mark.case("H4")
def test_a_run_goes_on_with_nothing_but_its_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    runs.stop_after(monkeypatch, recipe, 5)
    with (tmp_path / "text.txt").open("a") as file:
        file.write("\n\n\nanother document")
    with pytest.raises(TrainingError, match=r"the text of text\.txt has changed since"):
        runs.carry(recipe, resume=True)


@pytest.mark.case("H7")
def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    break_gradients(monkeypatch, range(6, 100), float("nan"))
    with pytest.raises(TrainingError, match="norm of the gradient nan at step 10, the 4th step"):
        runs.carry(recipe)
    assert not Path(recipe["output"], "final").exists()
    kept = load_file(runs.last_checkpoint(recipe) / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())


@pytest.mark.case("H7")
def test_a_single_step_without_finite_numbers_is_skipped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = runs.recipe(tmp_path)
    break_gradients(monkeypatch, range(3, 4), float("inf"))
    final = runs.carry(recipe, quiet=False)
    assert "skipped: a number is not finite" in capsys.readouterr().err
    manifest = read_manifest(final)
    assert manifest is not None
    assert manifest.trainings[0].settings["num_skipped_steps"] == 1
    norms = [line["gradient_norm"] for line in runs.lines(recipe) if "loss" in line]
    assert [i for i, norm in enumerate(norms) if norm is None] == [3]


@pytest.mark.case("H7")
def test_a_stage_whose_last_step_was_skipped_still_hands_its_state_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_gradients(monkeypatch, range(3, 4), float("inf"))
    recipe = runs.recipe(tmp_path, stages=runs.growing("copy"))
    runs.carry(recipe)
    moments = load_file(runs.last_checkpoint(recipe) / "optimizer.safetensors")
    steps = {float(value) for name, value in moments.items() if name.endswith("/step")}
    assert max(steps) == 7, "three before the growth, four after it"


@pytest.mark.case("H14")
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    recipe["base"]["config"]["vocab_size"] = 300
    with pytest.raises(ModelError, match="vocab"):
        runs.carry(recipe)


@pytest.mark.case("H15")
def test_sequences_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    final = runs.carry(runs.recipe(tmp_path))
    (tmp_path / "two").mkdir()
    recipe = runs.recipe(tmp_path / "two", base=str(final), tokenizer=None, micro_batch_size=2)
    recipe["data"]["sequence_length"] = 128
    with pytest.raises(UsageError, match="max_position_embeddings 64"):
        runs.carry(recipe)


@pytest.mark.case("H7")
def test_a_row_of_no_number_that_no_text_touches_is_found_before_the_first_step(
    tmp_path: Path, make_checkpoint: MakeCheckpoint
) -> None:
    base = Path(shutil.copytree(make_checkpoint("llama", vocab_size=2048), tmp_path / "base"))
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"][2047] = float("inf")
    save_file(tensors, weights, metadata={"format": "pt"})
    recipe = runs.recipe(tmp_path, base=str(base))
    named = r"model\.safetensors: model\.embed_tokens\.weight holds 32 values that are NaN or"
    with pytest.raises(ModelError, match=named) as caught:
        runs.carry(recipe)
    assert caught.value.hint == "such a model cannot be trained; begin with another base"
    assert runs.losses(recipe) == []


def test_a_run_leaves_no_file_that_the_umask_would_let_others_read(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    before = os.umask(0o002)
    try:
        runs.carry(recipe)
    finally:
        os.umask(before)
    files = [path for path in Path(recipe["output"]).rglob("*") if path.is_file()]
    assert any("checkpoints" in path.parts for path in files)
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o664"}


def test_a_run_whose_folder_is_removed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfgrow.train import loop

    recipe = runs.recipe(tmp_path, output="run")
    monkeypatch.chdir(tmp_path)
    taken = loop.take_step

    def removing(run: Any, *arguments: Any) -> loop.Step:
        if run.position.step == 3:
            shutil.rmtree(tmp_path)
        return taken(run, *arguments)

    monkeypatch.setattr(loop, "take_step", removing)
    with pytest.raises(OutputError, match="run, the folder of the run, was removed while it ran"):
        runs.carry(recipe)
    tmp_path.mkdir()


@pytest.mark.case("H18")
def test_a_checkpoint_that_does_not_fit_leaves_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfgrow.train import checkpoints, stage_runner

    save = checkpoints.save_checkpoint
    calls = iter(range(100))

    def full(*arguments: Any, **options: Any) -> Path:
        if next(calls) == 2:
            import resource

            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, hard))
            try:
                return save(*arguments, **options)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                signal.signal(signal.SIGXFSZ, before)
        return save(*arguments, **options)

    recipe = runs.recipe(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(stage_runner, "save_checkpoint", full)
        with pytest.raises(GrowthError) as caught:
            runs.carry(recipe)
    assert caught.value.exit_code == OutputError.exit_code
    left = {path.name for path in Path(recipe["output"], "checkpoints").iterdir()}
    assert left == {"step-00000002", "step-00000004"}
    runs.carry(recipe, resume=True)
    assert len(runs.losses(recipe)) == 12


@pytest.mark.case("H20")
def test_the_model_is_written_in_the_dtype_of_its_base(tmp_path: Path) -> None:
    final = runs.carry(runs.recipe(tmp_path, dtype="bfloat16"))
    (tmp_path / "two").mkdir()
    again = runs.carry(runs.recipe(tmp_path / "two", base=str(final), tokenizer=None))
    assert {t.dtype for t in read(LocalFolder(again)).tensors.values()} == {"BF16"}


@pytest.mark.case("H21")
def test_what_a_resumed_run_counts_is_what_the_whole_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        recipe = runs.recipe(tmp_path / name)
        if name == "broken":
            runs.stop_after(monkeypatch, recipe, 7)
        runs.carry(recipe, resume=name == "broken")
        checkpoints = json.loads((runs.last_checkpoint(recipe) / "state.json").read_text())
        checkpoints["position"].pop("stage_seconds")
        states.append(checkpoints)
    assert states[0] == states[1]
    assert states[0]["position"]["tokens"] == 3072
    assert states[0]["position"]["samples"] == 96


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
