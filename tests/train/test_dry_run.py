"""A dry run says what a recipe costs, and refuses what the run itself would refuse."""

import itertools
import json
import re
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from hfgrow.console import Silent
from hfgrow.errors import GrowthError, UsageError
from hfgrow.hub.client import HubClient
from hfgrow.train import dry_run, estimate
from hfgrow.train.recipe.recipe import recipe_of
from tests.train import runs


def looked_at(recipe: dict[str, Any], *, resume: bool = False) -> dry_run.DryRun:
    return dry_run.dry_run(recipe_of(recipe), HubClient(), Silent(), resume=resume, on_cpu=True)


def planned(recipe: dict[str, Any], *, resume: bool = False) -> list[str]:
    found = looked_at(recipe, resume=resume)
    return [*(f"{name}: {text}" for name, text in found.rows()), *found.notes]


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
        assert f"; {cost:.3g} FLOPs; " in line
    checkpoint = runs.last_checkpoint(recipe)
    files = [path for path in checkpoint.iterdir() if path.suffix == ".safetensors"]
    needs = dry_run.needs_of(recipe_of(recipe), needs_models(recipe))
    taken = sum(path.stat().st_size for path in files)
    assert needs.checkpoint_nbytes == pytest.approx(taken, rel=0.1)


def needs_models(recipe: dict[str, Any]) -> Any:
    from hfgrow.train.planned_stages import plan_recipe

    return plan_recipe(recipe_of(recipe), HubClient(), Silent())


def test_a_growth_that_learns_is_charged_too(tmp_path: Path) -> None:
    learn = {"grow": {"operator": "learn", "g": 2, "steps": 3}}
    recipe = runs.recipe(tmp_path, stages=[runs.GROWN[0], learn, runs.GROWN[2]])
    lines = planned(recipe)
    flops = [float(line.split("; ")[-2].removesuffix(" FLOPs")) for line in lines[1:4]]
    (in_all,) = (line for line in lines if line.startswith("compute: "))
    assert float(in_all.split()[1]) == pytest.approx(sum(flops), rel=0.01)
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


def test_text_that_the_hub_could_not_be_asked_for_is_noted(tmp_path: Path) -> None:
    recipe = changed(tmp_path, data__train=[{"dataset": "org/text"}])
    (note,) = (line for line in planned(recipe) if line.startswith("whether there is such text"))
    asked = "whether there is such text was not asked of the Hub (org/text): "
    assert note.startswith(f"{asked}looking up the dataset org/text")


def test_an_output_that_would_stop_the_run_is_told(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path)
    runs.carry(recipe)
    note = "the run itself would stop here: "
    assert any(line.startswith(note) and "holds a run already" in line for line in planned(recipe))
    assert not any(line.startswith(note) for line in planned(recipe, resume=True))
    (tmp_path / "file").touch()
    lines = planned(recipe | {"output": str(tmp_path / "file")})
    assert any("is no folder of a run" in line for line in lines)


def test_a_disk_that_is_too_small_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
    lines = planned(runs.recipe(tmp_path))
    assert any(line.endswith("of disk, and 1 kB are free") for line in lines)


def test_memory_is_told_by_its_parts_and_what_is_counted_is_exact(tmp_path: Path) -> None:
    found = looked_at(runs.recipe(tmp_path, stages=runs.GROWN))
    memory, num_parameters = found.memory, found.models[-1].num_parameters
    assert memory.weights == memory.gradients == 4 * num_parameters
    assert memory.optimizer == 8 * num_parameters
    assert memory.total == sum(
        (
            memory.weights,
            memory.gradients,
            memory.optimizer,
            memory.activations or 0,
            memory.logits,
            memory.program,
        )
    )


@pytest.mark.parametrize(
    ("asked", "num_bytes"), [({}, 0), ({"new_warmup": 512}, 5), ({"trainable": "new"}, 5)], ids=str
)
def test_masks_and_copies_of_what_is_new_in_part_are_counted(
    tmp_path: Path, asked: dict[str, Any], num_bytes: int
) -> None:
    """A byte and four an entry of gate, up and down of two layers."""
    train = {"tokens": 1024, "learning_rate": 1e-2} | asked
    grow = {"operator": "hyperclone", "ffn": 64}
    recipe = runs.recipe(tmp_path, stages=[{"grow": grow}, {"train": train}])
    weights = 4 * needs_models(recipe)[1].num_parameters
    assert looked_at(recipe).memory.weights - weights == num_bytes * 2 * 3 * 16 * 64


def test_of_stages_of_one_size_the_memory_is_that_of_the_one_that_trains_most(
    tmp_path: Path,
) -> None:
    """Many small tensors do not outweigh a few large ones."""
    few = {"tokens": 1024, "learning_rate": 1e-2, "trainable": ["*mlp.down_proj.weight"]}
    many = {"tokens": 1024, "learning_rate": 1e-2, "trainable": ["*norm.weight"]}
    found = looked_at(runs.recipe(tmp_path, stages=[{"train": many}, {"train": few}]))
    norms, matrices = found.models
    assert len(norms.trained) > len(matrices.trained)
    assert found.memory.gradients == 4 * matrices.num_trained > 4 * norms.num_trained


def test_activations_grow_with_the_micro_batch_and_shrink_when_recomputed(tmp_path: Path) -> None:
    def kept(**changes: Any) -> int:
        found = looked_at(runs.recipe(tmp_path, **changes)).memory.activations
        assert found is not None
        return found

    assert kept(micro_batch_size=4) == pytest.approx(2 * kept(micro_batch_size=2), rel=0.1)
    assert kept(activation_checkpointing=True) < kept()


@pytest.mark.parametrize("more", [{}, {"model_type": "mixtral", "num_local_experts": 4}], ids=str)
def test_activations_are_those_that_training_keeps(tmp_path: Path, more: dict[str, Any]) -> None:
    import torch

    from hfgrow.growth.loading import built_model, config_of, filled_config
    from hfgrow.train.attention import use_causal_attention

    recipe = runs.recipe(tmp_path)
    recipe["base"]["config"] |= more
    found = looked_at(recipe)
    model = built_model(config_of(filled_config(found.models[0].plan.config)))
    use_causal_attention(model)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    tensors = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            tensors.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.model(torch.zeros(4, 32, dtype=torch.long), use_cache=False)
    state = hidden.last_hidden_state
    beside = 2 * 4 * state.numel()
    assert found.memory.activations == pytest.approx(sum(kept.values()) + beside, rel=0.02)


def test_evaluations_are_counted_as_the_run_makes_them(tmp_path: Path) -> None:
    recipe = runs.recipe(tmp_path, stages=runs.GROWN, evaluation={"every_tokens": 300})
    found = looked_at(recipe)
    runs.carry(recipe)
    made = [line for line in runs.lines(recipe) if "validation" in line]
    assert found.needs.num_evaluations == len(made)


def test_no_more_held_out_text_is_counted_than_there_can_be(tmp_path: Path) -> None:
    def counted(tokens: int, **data: Any) -> int:
        recipe = runs.recipe(tmp_path, evaluation={"tokens": tokens})
        return dry_run.needs_of(
            recipe_of({**recipe, "data": recipe["data"] | data}), ()
        ).evaluation_tokens

    assert counted(50) == 50
    nbytes = (tmp_path / "text.txt").stat().st_size
    assert counted(10**6) == nbytes // 10
    # A hundredth: whole documents, of which the last may be as long as all should be.
    assert counted(10**6, validation=[]) == ceil(nbytes * 9 // 10 / 100)
    # The text that travels with hfgrow is here too.
    assert counted(10**6, train=[{"dataset": "demo"}], validation=[]) < 10_000


def test_json_has_all_that_the_table_says(tmp_path: Path) -> None:
    found = looked_at(runs.recipe(tmp_path)).to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["seconds"] > 0
    assert found["rate"]["is_measured"]
    assert found["stages"][0]["flops"] == found["flops"]
    assert found["recipe"]["optimizer"]["betas"] == [0.9, 0.95]


def rate(folder: Path) -> estimate.Rate:
    found = looked_at(runs.recipe(folder)).rate
    assert found is not None
    assert found.flops_per_s > 0
    return found


def test_the_rate_is_that_of_whole_steps_behind_the_first(tmp_path: Path) -> None:
    found = rate(tmp_path)
    assert found.is_measured
    # Three micro-batches of four sequences of 32 tokens.
    said = r"measured on 384 tokens in \d+\.\d s, \d+ threads? of this machine as it is now"
    assert re.fullmatch(said, found.source)


@pytest.mark.parametrize("limit", ["_TIMING_S", "_NUM_STEPS"])
def test_a_first_step_that_takes_all_the_time_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(estimate, limit, 0)
    found = rate(tmp_path)
    assert not found.is_measured
    assert (
        found.source
        == "assumed, 70% of measured products on free cores; a model this small reaches less"
    )


def test_a_step_is_left_where_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock takes a second, and the layers look at it."""

    def end(*_: object, **__: object) -> None:
        raise AssertionError("the step was made to its end")

    seconds = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr("torch.optim.AdamW.step", end)
    assert not rate(tmp_path).is_measured
    assert next(seconds) < 20


def test_a_warmup_of_what_is_new_is_refused_where_nothing_has_grown(tmp_path: Path) -> None:
    stages = [{"train": {"tokens": 1024, "learning_rate": 1e-2, "new_warmup": 0.5}}]
    with pytest.raises(UsageError, match="new_warmup is of what a growth added"):
        looked_at(runs.recipe(tmp_path, stages=stages))


def test_a_stage_that_trains_a_part_alone_says_so(tmp_path: Path) -> None:
    last = {"tokens": 1024, "learning_rate": 1e-2, "trainable": "new", "new_warmup": 0.5}
    lines = planned(runs.recipe(tmp_path, stages=[*runs.GROWN[:2], {"train": last}]))
    said = r"learning rate 0\.01, trainable new \(what the last growth added: [\d,]+ parameters\), "
    assert re.search(said + r"new_warmup 0\.5; ", lines[3])
    assert "trainable" not in lines[1]
    last |= {"trainable": ["*.q_proj.*", "*.k_proj.*", "*norm*", "*.up_proj.*"], "new_warmup": None}
    lines = planned(runs.recipe(tmp_path, stages=[*runs.GROWN[:2], {"train": last}]))
    said = r", trainable \*\.q_proj\.\* \*\.k_proj\.\* \*norm\* and 1 more \([\d,]+ parameters\); "
    assert re.search(said, lines[3])
