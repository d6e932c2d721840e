"""A run of a recipe, in this process: stages, growth on the way, what is computed."""

import json
import re
import shutil
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, UsageError
from hfgrow.lineage.manifest import TrainingLink
from hfgrow.lineage.reading import read_manifest
from hfgrow.train import metrics
from hfgrow.train.metrics import Position
from hfgrow.train.plateau import is_at_plateau
from hfgrow.train.recipe.recipe import recipe_of
from tests.checkpoints import TRAITS
from tests.families import DENSE
from tests.skeletons import config_of
from tests.train import runs


def test_a_run_trains_and_its_model_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    recipe = runs.recipe(tmp_path)
    final = runs.carry(recipe)
    assert runs.losses(recipe)[-1] < runs.losses(recipe)[0] - 1
    auto_model: Any = AutoModelForCausalLM
    model, report = auto_model.from_pretrained(final, output_loading_info=True)
    assert not any(report.values())
    assert model.config.num_hidden_layers == 2
    assert (final / "tokenizer.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", DENSE)
def test_every_family_trains(model_type: str, tmp_path: Path) -> None:
    config = config_of(model_type, **TRAITS[model_type], vocab_size=2048)
    # What transformers reads, and keeps under another name, is no key of a fresh model.
    for key in ("sliding_window_pattern", "partial_rotary_factor"):
        if model_type in ("gemma3_text", "phi3"):
            config.pop(key, None)
    base = {"config": {"model_type": model_type, **config}}
    recipe = runs.recipe(tmp_path, base=base)
    if model_type == "qwen2":
        # transformers splits text as Qwen does, whatever the file says: such a file, then.
        (tmp_path / "qwen").mkdir()
        (tmp_path / "qwen" / "config.json").write_text('{"model_type": "qwen2"}')
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(Path(str(files("hfgrow") / "demo" / name)), tmp_path / "qwen")
        tokenizer: Any = AutoTokenizer
        tokenizer.from_pretrained(tmp_path / "qwen").save_pretrained(tmp_path / "qwen")
        recipe = runs.recipe(tmp_path, base=base, tokenizer=str(tmp_path / "qwen"))
    runs.carry(recipe)
    assert runs.losses(recipe)[-1] < runs.losses(recipe)[0]


def test_held_out_losses_are_measured_at_the_start_the_end_and_between(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    runs.carry(recipe)
    measured = [(line["when"], line["tokens"]) for line in runs.lines(recipe) if "when" in line]
    assert measured == [("start", 0), ("inside", 1024), ("inside", 2048), ("end", 3072)]


def test_the_time_that_is_left_is_told_by_the_speed_of_this_session() -> None:
    """100 steps at 10 s, then 4 at 1 s."""
    at = Position(stage_step=104, stage_seconds=1004.0)
    assert at.seconds_left(110, (100, 1000.0)) == 6.0
    assert at.seconds_left(110, (103, 1003.0)) == 0.0


@pytest.mark.parametrize("first_s", [0.0, 600.0])
def test_a_step_that_takes_long_tells_how_far_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    first_s: float,
) -> None:
    monkeypatch.setattr(metrics, "_WITHIN_S", first_s)
    runs.carry(runs.recipe(tmp_path), quiet=False)
    said = [line for line in capfd.readouterr().err.splitlines() if ", tokens: " in line]
    if first_s:
        assert said == []
        return
    # The way forward of the first of two micro-batches, a third of what it takes.
    assert re.match(r"  step 1/12, tokens: 42 of 256, \d+ s left", said[1])
    assert re.match(r"  measuring held-out text, tokens: 128 of 512, \d+ s left", said[0])
    assert sum("step " in line for line in said) == 12


def test_a_stage_ends_where_the_held_out_loss_stops_falling(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = runs.recipe(tmp_path, **runs.PLATEAU)
    final = runs.carry(recipe, quiet=False)
    first, *_ = (line["validation"] for line in runs.lines(recipe) if line.get("when") == "inside")
    (text,) = first.values()
    said = (
        "  no held-out loss of the last 2 was 9 or more below the best before, "
        f"{text['loss']:.4f}: the stage ends after 768 of at most 3,072 tokens\n"
    )
    assert said in capfd.readouterr().err
    measured = [(line["when"], line["tokens"]) for line in runs.lines(recipe) if "when" in line]
    # The start does not count, and 512 and 768 are hardly better than 256.
    assert measured[:5] == [
        ("start", 0),
        *(("inside", n) for n in (256, 512)),
        ("end", 768),
        ("start", 768),
    ]
    manifest = read_manifest(final)
    assert manifest is not None
    waited, _, trained = manifest.chain
    assert isinstance(waited, TrainingLink)
    assert (waited.compute.tokens, waited.settings["until_tokens"]) == (768, 3072)
    assert (waited.settings["until_plateau"], waited.settings["until_evaluations"]) == (9.0, 2)
    assert isinstance(trained, TrainingLink)
    assert trained.compute.tokens == 512
    made_by = yaml.safe_load((final / "recipe.yaml").read_text())
    assert made_by["stages"][0]["train"]["until"] == {"plateau": 9.0, "evaluations": 2}


@pytest.mark.parametrize(("loss", "is_reached"), [(0.0, True), (None, False)])
def test_a_loss_of_zero_can_fall_no_further_and_is_no_broken_one(
    loss: float | None, is_reached: bool, tmp_path: Path
) -> None:
    recipe = recipe_of(runs.recipe(tmp_path, **runs.PLATEAU))
    evaluations = [
        {"stage": 0, "tokens": tokens, "validation": {"text": {"num_tokens": 512, "loss": loss}}}
        for tokens in (256, 512, 768)
    ]
    at, train = Position(stage=0, stage_step=3, tokens=768), recipe.stages[0].train
    assert train is not None
    assert is_at_plateau(recipe, train, at, evaluations) is is_reached


@pytest.mark.slow
def test_a_stage_that_goes_on_improving_spends_its_tokens(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, **runs.PLATEAU)
    recipe["stages"] = [{"train": {**recipe["stages"][0]["train"], "until": {"plateau": 0.0}}}]
    runs.carry(recipe)
    assert len(runs.losses(recipe)) == 12


def test_held_out_texts_of_one_name_are_recorded_apart(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, stages=runs.GROWN[:1])
    text = recipe["data"]["train"][0]["path"]
    splits = ("train[90%:95%]", "train[95%:]")
    recipe["data"]["validation"] = [{"path": text, "split": split} for split in splits]
    final = runs.carry(recipe)
    for line in runs.lines(recipe):
        assert list(line.get("validation", ())) in ([], ["text.txt", "text.txt (2)"])
    manifest = read_manifest(final)
    assert manifest is not None
    assert len({e.after for link in manifest.trainings for e in link.evaluations}) == 2


def test_a_run_that_ends_in_growth_knows_it_by_the_sha256_of_what_it_wrote(tmp_path: Path) -> None:
    manifest = read_manifest(runs.carry(runs.recipe(tmp_path, stages=runs.GROWN[:2])))
    assert manifest is not None
    assert manifest.growth.is_proved


def test_the_last_step_of_a_stage_still_learns(tmp_path: Path) -> None:
    """Also where its tokens are rounded up to a whole batch."""
    recipe = runs.recipe(tmp_path, stages=[{"train": {"tokens": 1030, "learning_rate": 1e-2}}])
    runs.carry(recipe)
    rates = [line["learning_rate"] for line in runs.lines(recipe) if "loss" in line]
    assert len(rates) == 5
    assert rates[-1] > 0


def test_the_same_recipe_gives_the_same_bits(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        recipe = runs.recipe(tmp_path / name)
        runs.carry(recipe)
        found.append(runs.weights(recipe))
    assert found[0] == found[1]


def test_a_run_grows_on_the_way(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, stages=runs.GROWN)
    final = runs.carry(recipe)
    assert read(LocalFolder(final)).num_hidden_layers == 4
    (line,) = (line for line in runs.lines(recipe) if "growth" in line)
    assert line["tokens"] == 1024
    held_out = [
        (line["stage"], line["when"], line["validation"]["text.txt"]["loss"])
        for line in runs.lines(recipe)
        if "when" in line
    ]
    before = next(loss for stage, when, loss in held_out if (stage, when) == (0, "end"))
    after = next(loss for stage, when, loss in held_out if (stage, when) == (2, "start"))
    assert after == before, "zero layers change nothing, and neither does the way over the disk"


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_moments_go_through_growth(tmp_path: Path, optimizer: str) -> None:
    """With the moments kept, the steps after growth are others than with them reset."""
    after = {}
    for mode in ("reset", "copy"):
        (tmp_path / mode).mkdir()
        stages = runs.growing(mode)
        recipe = runs.recipe(tmp_path / mode, stages=stages, optimizer={"name": optimizer})
        runs.carry(recipe)
        after[mode] = runs.losses(recipe)
    assert after["reset"][:5] == after["copy"][:5]
    assert after["reset"][6:] != after["copy"][6:]


def test_only_the_inserted_layers_train_where_the_recipe_says_new(tmp_path: Path) -> None:
    stages = [*runs.GROWN[:2], {"train": {**runs.GROWN[2]["train"], "trainable": "new"}}]
    recipe = runs.recipe(tmp_path, stages=stages)
    final = runs.carry(recipe)
    (grown,) = Path(recipe["output"], "stages", "01").iterdir()
    before = load_file(grown / "model.safetensors")
    after = load_file(final / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {name.split(".")[2] for name in changed}
    assert all(name.startswith("model.layers.") for name in changed)
    assert layers == {"1", "3"}, "zero-depth puts a new layer behind each of the two"


def test_a_mask_opens_while_the_model_trains(tmp_path: Path) -> None:
    grow = {"grow": {"operator": "random-depth", "g": 2, "seed": 5}}
    train = {"train": {"tokens": 1024, "learning_rate": 1e-2, "mask_ramp": 0.5}}
    recipe = runs.recipe(tmp_path, stages=[runs.GROWN[0], grow, train])
    runs.carry(recipe)
    masks = [line["mask"] for line in runs.lines(recipe) if "mask" in line]
    assert masks == [0.5, 1.0, 1.0, 1.0]


def test_schedule_free_exports_the_mean_and_not_where_it_stands(tmp_path: Path) -> None:
    stages = [{"train": {"tokens": 3072, "learning_rate": 1e-2, "schedule": "constant"}}]
    recipe = runs.recipe(tmp_path, stages=stages, optimizer={"name": "schedule_free_adamw"})
    final = runs.carry(recipe)
    exported = load_file(final / "model.safetensors")
    checkpoint = runs.last_checkpoint(recipe)
    y = load_file(checkpoint / "model.safetensors")
    z = load_file(checkpoint / "optimizer.safetensors")
    for name, x in exported.items():
        mean = (y[name] - 0.1 * z[f"{name}/z"]) / 0.9
        assert not torch.equal(x, y[name])
        torch.testing.assert_close(x, mean, rtol=0, atol=1e-5)


def test_muon_trains(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, optimizer={"name": "muon"})
    runs.carry(recipe)
    assert runs.losses(recipe)[-1] < runs.losses(recipe)[0] - 0.5


def test_bf16_is_computed_in_and_float32_is_kept(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, precision="bf16", dtype="bfloat16")
    final = runs.carry(recipe)
    kept = load_file(runs.last_checkpoint(recipe) / "model.safetensors")
    written = load_file(final / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    assert json.loads((final / "config.json").read_text())["dtype"] == "bfloat16"


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    found = []
    for again in (False, True):
        folder = tmp_path / str(again)
        folder.mkdir()
        recipe = runs.recipe(folder, activation_checkpointing=again)
        runs.carry(recipe)
        found.append(runs.losses(recipe))
    assert found[0] == found[1]


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    found = []
    for size in (2, 8):
        folder = tmp_path / str(size)
        folder.mkdir()
        recipe = runs.recipe(folder, micro_batch_size=size)
        recipe["data"]["document_mask"] = True
        runs.carry(recipe)
        found.append(torch.tensor(runs.losses(recipe)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_a_tracker_that_is_not_installed_is_not_left_out_in_silence(tmp_path: Path) -> None:
    if find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(UsageError, match="the tracker wandb is not installed"):
        runs.carry(runs.recipe(tmp_path, trackers=["wandb"]))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"grow": {"operator": "stack", "g": 0}}, "stages.1: growth factor g must be at least 2"),
        (
            {"train": {"tokens": 512, "learning_rate": 1e-3, "trainable": ["foo*"]}},
            "stages.1: trainable: no tensor name matches",
        ),
        (
            {"train": {"tokens": 512, "learning_rate": 1e-3, "trainable": "new"}},
            "stages.1: trainable new matches nothing",
        ),
    ],
)
def test_a_stage_that_cannot_be_is_found_before_the_first_begins(
    tmp_path: Path, stage: dict[str, Any], said: str
) -> None:
    recipe = runs.recipe(tmp_path, stages=[runs.GROWN[0], stage, runs.GROWN[2]])
    with pytest.raises(UsageError, match=said):
        runs.carry(recipe)
    assert not runs.lines(recipe)


def test_shards_grow_first(tmp_path: Path) -> None:
    world = {"processes": 1, "strategy": "fsdp2"}
    final = runs.carry(runs.recipe(tmp_path, stages=runs.GROWN[1:], world=world))
    assert read(LocalFolder(final)).num_hidden_layers == 4


def test_weights_that_are_no_numbers_are_found_before_the_first_step(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(runs.carry(runs.recipe(tmp_path)), base)
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "two").mkdir()
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds 1 values that are NaN"):
        runs.carry(runs.recipe(tmp_path / "two", base=str(base), tokenizer=None))
