"""A run of a recipe, in this process: stages, checkpoints, growth on the way, what is refused."""

import json
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import GrowthError, ModelError, OutputError, TrainingError, UsageError
from hfgrow.train.main import Job, carry_out
from hfgrow.train.recipe import recipe_of
from tests.train import runs

GROWN: list[dict[str, Any]] = [
    {"train": {"tokens": 1024, "learning_rate": 1e-2}},
    {"grow": {"operator": "zero-depth", "g": 2}},
    {"train": {"tokens": 1024, "learning_rate": 1e-2}},
]


def carry(recipe: dict[str, Any], **flags: Any) -> Path:
    result = carry_out(Job(recipe=recipe_of(recipe), on_cpu=True, quiet=True, **flags))
    return Path(result["folder"])


def last_checkpoint(recipe: dict[str, Any]) -> Path:
    return max(Path(recipe["output"], "checkpoints").iterdir(), key=lambda path: path.name)


def stop_after(monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], step: int) -> None:
    """Run a recipe up to a step, as if the power had failed right after it."""
    from hfgrow.train import loop

    class PowerFailureError(Exception):
        pass

    taken = loop._step

    def failing(run: Any, *arguments: Any) -> int:
        if run.position.step == step:
            raise PowerFailureError
        return taken(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", failing)
        with pytest.raises(PowerFailureError):
            carry(recipe)


def test_a_run_trains_and_its_model_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    recipe = runs.recipe(tmp_path)
    final = carry(recipe)
    assert runs.losses(recipe)[-1] < runs.losses(recipe)[0] - 1
    auto_model: Any = AutoModelForCausalLM
    model, report = auto_model.from_pretrained(final, output_loading_info=True)
    assert not any(report.values())
    assert model.config.num_hidden_layers == 2
    assert (final / "tokenizer.json").is_file()


def test_held_out_losses_are_measured_at_the_start_the_end_and_between(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    carry(recipe)
    measured = [(line["when"], line["tokens"]) for line in runs.lines(recipe) if "when" in line]
    assert measured == [("start", 0), ("inside", 1024), ("inside", 2048), ("end", 3072)]


def test_the_same_recipe_gives_the_same_bits(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        recipe = runs.recipe(tmp_path / name)
        carry(recipe)
        found.append(runs.weights(recipe))
    assert found[0] == found[1]


def test_a_run_grows_on_the_way(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, stages=GROWN)
    final = carry(recipe)
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


@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_run_with_growth_resumes_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Also where the power fails between growth and the first step after it."""
    stages = [GROWN[0], {"grow": {**GROWN[1]["grow"], "optimizer_state": "copy"}}, GROWN[2]]
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = runs.recipe(tmp_path / "whole", stages=stages)
    broken = runs.recipe(tmp_path / "broken", stages=stages)
    carry(whole)
    stop_after(monkeypatch, broken, step)
    carry(broken, resume=True)
    assert runs.losses(broken) == runs.losses(whole)
    assert runs.weights(broken) == runs.weights(whole)


def test_moments_go_through_growth(tmp_path: Path) -> None:
    """With the moments kept, the steps after growth are others than with them reset."""
    after = {}
    for mode in ("reset", "copy"):
        (tmp_path / mode).mkdir()
        stages = [GROWN[0], {"grow": {**GROWN[1]["grow"], "optimizer_state": mode}}, GROWN[2]]
        recipe = runs.recipe(tmp_path / mode, stages=stages)
        carry(recipe)
        after[mode] = runs.losses(recipe)
    assert after["reset"][:5] == after["copy"][:5]
    assert after["reset"][6:] != after["copy"][6:]


def test_only_the_inserted_layers_train_where_the_recipe_says_new(tmp_path: Path) -> None:
    stages = [*GROWN[:2], {"train": {**GROWN[2]["train"], "trainable": "new"}}]
    recipe = runs.recipe(tmp_path, stages=stages)
    final = carry(recipe)
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
    recipe = runs.recipe(tmp_path, stages=[GROWN[0], grow, train])
    carry(recipe)
    masks = [line["mask"] for line in runs.lines(recipe) if "mask" in line]
    assert masks == [0.5, 1.0, 1.0, 1.0]


def test_schedule_free_exports_the_mean_and_not_where_it_stands(tmp_path: Path) -> None:
    stages = [{"train": {"tokens": 3072, "learning_rate": 1e-2, "schedule": "constant"}}]
    recipe = runs.recipe(tmp_path, stages=stages, optimizer={"name": "schedule_free_adamw"})
    final = carry(recipe)
    exported = load_file(final / "model.safetensors")
    checkpoint = last_checkpoint(recipe)
    y = load_file(checkpoint / "model.safetensors")
    z = load_file(checkpoint / "optimizer.safetensors")
    for name, x in exported.items():
        mean = (y[name] - 0.1 * z[f"{name}/z"]) / 0.9
        assert not torch.equal(x, y[name])
        torch.testing.assert_close(x, mean, rtol=0, atol=1e-5)


def test_muon_trains(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, optimizer={"name": "muon"})
    carry(recipe)
    assert runs.losses(recipe)[-1] < runs.losses(recipe)[0] - 0.5


def test_bf16_is_computed_in_and_float32_is_kept(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, precision="bf16", dtype="bfloat16")
    final = carry(recipe)
    kept = load_file(last_checkpoint(recipe) / "model.safetensors")
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
        carry(recipe)
        found.append(runs.losses(recipe))
    assert found[0] == found[1]


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    found = []
    for size in (2, 8):
        folder = tmp_path / str(size)
        folder.mkdir()
        recipe = runs.recipe(folder, micro_batch_size=size)
        recipe["data"]["document_mask"] = True
        carry(recipe)
        found.append(torch.tensor(runs.losses(recipe)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_a_tracker_that_is_not_installed_is_not_left_out_in_silence(tmp_path: Path) -> None:
    if find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(UsageError, match="the tracker wandb is not installed"):
        carry(runs.recipe(tmp_path, trackers=["wandb"]))


def test_an_output_that_holds_a_run_is_not_begun_again(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    carry(recipe)
    with pytest.raises(OutputError, match="holds a run already") as caught:
        carry(recipe)
    assert "--resume" in caught.value.hint


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    carry(recipe)
    before = Path(recipe["output"], "metrics.jsonl").read_bytes()
    carry(recipe, resume=True)
    assert Path(recipe["output"], "metrics.jsonl").read_bytes() == before


def test_a_run_that_saved_nothing_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, seed=8)
    stop_after(monkeypatch, recipe, 1)
    assert Path(recipe["output"], "run.json").exists()
    recipe |= {"seed": 9}
    carry(recipe)
    assert len(runs.losses(recipe)) == 12


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
    recipe = runs.recipe(tmp_path, stages=[GROWN[0], stage, GROWN[2]])
    with pytest.raises(UsageError, match=said):
        carry(recipe)
    assert not runs.lines(recipe)


def test_shards_grow_first(tmp_path: Path) -> None:
    world = {"processes": 1, "strategy": "fsdp2"}
    final = carry(runs.recipe(tmp_path, stages=GROWN[1:], world=world))
    assert read(LocalFolder(final)).num_hidden_layers == 4


def test_trained_models_are_gone_on_with_where_the_checkpoints_were_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, stages=GROWN)
    stop_after(monkeypatch, recipe, 5)
    before = runs.losses(recipe)[:4]
    shutil.rmtree(Path(recipe["output"], "checkpoints"))
    with pytest.raises(OutputError, match="holds a run already"):
        carry(recipe)
    carry(recipe, resume=True)
    assert len(before) == 4
    state = json.loads((last_checkpoint(recipe) / "state.json").read_text())
    assert state["position"]["tokens"] == 2048, "the first stage is not trained again"


def test_a_stage_that_was_not_reached_may_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path, stages=GROWN)
    stop_after(monkeypatch, recipe, 3)
    stages = [GROWN[0], {"grow": {"operator": "stack", "g": 3}}, GROWN[2]]
    final = carry(recipe | {"stages": stages}, resume=True)
    assert read(LocalFolder(final)).num_hidden_layers == 6


def test_weights_that_are_no_numbers_are_found_before_the_first_step(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(carry(runs.recipe(tmp_path)), base)
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "two").mkdir()
    with pytest.raises(ModelError, match="weights are broken"):
        carry(runs.recipe(tmp_path / "two", base=str(base), tokenizer=None))


def test_an_output_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    Path(recipe["output"]).mkdir()
    Path(recipe["output"], "thesis.tex").write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match="no folder of a run"):
            carry(recipe, resume=resume)


@pytest.mark.case("H1")
@pytest.mark.parametrize("case", ["truncated", "missing", "flipped"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_h1_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, case: str
) -> None:
    recipe = runs.recipe(tmp_path)
    stop_after(monkeypatch, recipe, 5)
    before = runs.losses(recipe)
    path = last_checkpoint(recipe) / file
    content = bytearray(path.read_bytes())
    if case == "missing":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content[:-1] if case == "truncated" else content)
    carry(recipe, resume=True)
    assert runs.losses(recipe)[:5] == before, "it went on from the checkpoint at step 2"


@pytest.mark.case("H2")
def test_h2_a_checkpoint_without_a_manifest_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    stop_after(monkeypatch, recipe, 5)
    (last_checkpoint(recipe) / "manifest.json").unlink()
    carry(recipe, resume=True)
    assert len(runs.losses(recipe)) == 12


@pytest.mark.case("H3")
def test_h3_a_pickle_in_a_checkpoint_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    stop_after(monkeypatch, recipe, 5)
    witness = tmp_path / "witness"
    code = f"cbuiltins\neval\n(Vopen({str(witness)!r}, 'w')\ntR."
    for name in ("custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl"):
        (last_checkpoint(recipe) / name).write_text(code)
    carry(recipe, resume=True)
    assert not witness.exists()


@pytest.mark.case("H4")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"batch_tokens": 512}, "batch_tokens was 256, is 512"),
    ],
)
def test_h4_a_run_goes_on_with_nothing_but_its_own_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], named: str
) -> None:
    recipe = runs.recipe(tmp_path)
    stop_after(monkeypatch, recipe, 5)
    with pytest.raises(TrainingError, match=named):
        carry(recipe | change, resume=True)


@pytest.mark.case("H4")
def test_h4_a_run_goes_on_with_nothing_but_its_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runs.recipe(tmp_path)
    stop_after(monkeypatch, recipe, 5)
    with (tmp_path / "text.txt").open("a") as file:
        file.write("\n\n\nanother document")
    with pytest.raises(TrainingError, match="data was"):
        carry(recipe, resume=True)


@pytest.mark.case("H7")
def test_h7_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfgrow.train import devices, loop

    clip = devices.clip_gradients
    calls = iter(range(100))

    def broken(parameters: list[Any], most: float | None) -> float:
        return float("nan") if next(calls) >= 6 else clip(parameters, most)

    recipe = runs.recipe(tmp_path)
    monkeypatch.setattr(loop, "clip_gradients", broken)
    with pytest.raises(TrainingError, match="norm of the gradient nan at step 10, the 4th step"):
        carry(recipe)
    assert not Path(recipe["output"], "final").exists()
    kept = load_file(last_checkpoint(recipe) / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())


@pytest.mark.case("H7")
def test_h7_a_single_step_without_finite_numbers_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfgrow.train import devices, loop

    clip = devices.clip_gradients
    calls = iter(range(100))
    recipe = runs.recipe(tmp_path)
    monkeypatch.setattr(
        loop,
        "clip_gradients",
        lambda p, most: float("inf") if next(calls) == 3 else clip(p, most),
    )
    carry(recipe)
    norms = [line["gradient_norm"] for line in runs.lines(recipe) if "loss" in line]
    assert [i for i, norm in enumerate(norms) if norm is None] == [3]


@pytest.mark.case("H14")
def test_h14_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    recipe["base"]["config"]["vocab_size"] = 300
    with pytest.raises(ModelError, match="vocab"):
        carry(recipe)


@pytest.mark.case("H15")
def test_h15_sequences_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    final = carry(runs.recipe(tmp_path))
    (tmp_path / "two").mkdir()
    recipe = runs.recipe(tmp_path / "two", base=str(final), tokenizer=None)
    recipe["data"]["sequence_length"] = 128
    with pytest.raises(UsageError, match="max_position_embeddings 64"):
        carry(recipe)


@pytest.mark.case("H18")
def test_h18_a_checkpoint_that_does_not_fit_leaves_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfgrow.train import run, state

    save = state.save_checkpoint
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
        patch.setattr(run, "save_checkpoint", full)
        with pytest.raises(GrowthError) as caught:
            carry(recipe)
    assert caught.value.exit_code == OutputError.exit_code
    left = {path.name for path in Path(recipe["output"], "checkpoints").iterdir()}
    assert left == {"step-00000002", "step-00000004"}
    carry(recipe, resume=True)
    assert len(runs.losses(recipe)) == 12


@pytest.mark.case("H20")
def test_h20_the_model_is_written_in_the_dtype_of_its_base(tmp_path: Path) -> None:
    final = carry(runs.recipe(tmp_path, dtype="bfloat16"))
    (tmp_path / "two").mkdir()
    again = carry(runs.recipe(tmp_path / "two", base=str(final), tokenizer=None))
    assert {t.dtype for t in read(LocalFolder(again)).tensors.values()} == {"BF16"}


@pytest.mark.case("H21")
def test_h21_what_a_resumed_run_counts_is_what_the_whole_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        recipe = runs.recipe(tmp_path / name)
        if name == "broken":
            stop_after(monkeypatch, recipe, 7)
        carry(recipe, resume=name == "broken")
        state = json.loads((last_checkpoint(recipe) / "state.json").read_text())
        state["position"].pop("stage_seconds")
        states.append(state)
    assert states[0] == states[1]
    assert states[0]["position"]["tokens"] == 3072
    assert states[0]["position"]["samples"] == 96


def test_a_base_that_changed_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(carry(runs.recipe(tmp_path)), base)
    (tmp_path / "two").mkdir()
    recipe = runs.recipe(tmp_path / "two", base=str(base), tokenizer=None)
    stop_after(monkeypatch, recipe, 3)
    tensors = load_file(base / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in tensors.items()},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(TrainingError, match=r"base model\.safetensors was"):
        carry(recipe, resume=True)
