"""Only what a growth added trains: to the entry, and the growth can be taken back afterwards."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.errors import ModelError, UsageError
from hfgrow.growth.grow import grow
from hfgrow.growth.memory import plan_state_dict
from hfgrow.growth.recorded import kept_by, kept_since
from hfgrow.growth.request import GrowthRequest
from hfgrow.growth.ungrow import ungrow
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.undo import Kept, kept_entries
from hfgrow.train.kept import PartlyNew
from hfgrow.train.optimizers import make_optimizer, parameter_groups, partly_new
from hfgrow.train.recipe.parts import AdamW, Muon
from tests.checkpoints import MakeCheckpoint, load
from tests.gradients import Steps, gradients, grown_model
from tests.growths import UPCYCLED, Case
from tests.train import runs

WIDEN: Steps = [("hyperclone", {"ffn": 96})]
SETTINGS = [AdamW(weight_decay=0.5), Muon(weight_decay=0.5)]
DOWN, UP = (f"model.layers.1.mlp.{word}_proj.weight" for word in ("down", "up"))


def kept_of(model: Any, steps: Steps) -> dict[str, Kept]:
    return kept_entries(plan_state_dict(model, steps))


def test_new_neurons_are_new_rows_and_columns(make_checkpoint: MakeCheckpoint) -> None:
    kept = kept_of(load(make_checkpoint())[0], WIDEN)
    assert kept[UP] == Kept((True,) * 48 + (False,) * 48, (True,) * 32)
    assert kept[DOWN] == Kept((True,) * 32, (True,) * 48 + (False,) * 48)
    words = (
        "gate_proj.weight",
        "gate_proj.bias",
        "up_proj.weight",
        "up_proj.bias",
        "down_proj.weight",
    )
    assert {name.split("mlp.")[1] for name in partly_new(kept)} == set(words)


def test_of_a_second_copy_everything_is_new(make_checkpoint: MakeCheckpoint) -> None:
    steps: Steps = [("stack", {"layers": 5}), *WIDEN, ("hyperclone", {"ffn": 192})]
    kept = kept_of(load(make_checkpoint())[0], steps)
    again = UP.replace("1", "4")
    assert not kept[again].is_some
    assert sum(kept[UP].rows) == 48
    assert kept["model.norm.weight"].is_all


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: str(settings.name))
def test_old_entries_keep_every_bit_and_new_ones_move(
    settings: AdamW | Muon, make_checkpoint: MakeCheckpoint
) -> None:
    base = load(make_checkpoint("qwen3", tied=True))[0]
    kept = kept_of(base, WIDEN)
    model = grown_model(base, WIDEN).float()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    map_of_layers = plan_state_dict(base, WIDEN).layer_map
    groups = parameter_groups(
        model, learning_rate=0.1, trainable="new", layer_map=map_of_layers, kept=kept
    )
    optimizer = make_optimizer(settings, groups)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained.keys() == partly_new(kept).keys()
    parts = PartlyNew(trained, kept, is_frozen=True)
    for _ in range(3):
        gradients(model)
        parts.mask_gradients()
        with parts.stepping(1.0):
            optimizer.step()
    for name, parameter in model.named_parameters():
        rows, cols = (torch.tensor(k or (True,)) for k in (kept[name].rows, kept[name].cols))
        is_old = (rows[:, None] & cols).reshape(parameter.shape) if parameter.ndim > 1 else rows
        assert torch.equal(parameter[is_old], before[name][is_old]), name
        assert (parameter != before[name])[~is_old].all(), name


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: str(settings.name))
def test_momentum_of_old_entries_takes_nothing_from_the_step_of_new_ones(
    settings: AdamW | Muon, make_checkpoint: MakeCheckpoint
) -> None:
    """Carried over, theirs is dropped; where the new have none, the step is that after a reset."""
    base = load(make_checkpoint())[0]
    kept = partly_new(kept_of(base, WIDEN))
    after = []
    for momentum in (0.0, 10.0):
        model = grown_model(base, WIDEN).float()
        named = dict(model.named_parameters())
        groups = parameter_groups(
            model,
            learning_rate=0.1,
            trainable="new",
            layer_map=plan_state_dict(base, WIDEN).layer_map,
            kept=kept_of(base, WIDEN),
        )
        optimizer = make_optimizer(settings, groups)
        for group in optimizer.param_groups:
            for p in group["params"]:
                state = {"momentum_buffer": torch.zeros_like(p)}
                if group.get("rule", "adamw") == "adamw":
                    state = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
                    state["step"] = torch.tensor(0.0)
                optimizer.state[p] = state
        (key,) = {"momentum_buffer", "exp_avg"} & optimizer.state[named[UP]].keys()
        carried = optimizer.state[named[UP]][key]
        carried[:48] = momentum * torch.randn(48, 32)
        parts = PartlyNew({name: named[name] for name in kept}, kept, is_frozen=True)
        parts.drop_momentum(optimizer)
        assert not carried.any()
        gradients(model)
        parts.mask_gradients()
        with parts.stepping(1.0):
            optimizer.step()
        assert not carried[:48].any()
        assert carried[48:].any()
        after.append(named[UP].detach())
    assert torch.equal(*after)


def test_new_entries_warm_up_alone(make_checkpoint: MakeCheckpoint) -> None:
    base = load(make_checkpoint())[0]
    kept = partly_new(kept_of(base, WIDEN))
    steps = {}
    for share in (1.0, 0.25, 0.0):
        model = grown_model(base, WIDEN)
        named = dict(model.named_parameters())
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        parts = PartlyNew({name: named[name] for name in kept}, kept, is_frozen=False)
        before = named[UP].detach().clone()
        gradients(model)
        with parts.stepping(share):
            optimizer.step()
        steps[share] = named[UP].detach() - before
    assert all(torch.equal(step[:48], steps[1.0][:48]) for step in steps.values())
    torch.testing.assert_close(steps[0.25][48:], steps[1.0][48:] / 4)
    assert not steps[0.0][48:].any()


def grown_from(base: Path, out: Path, steps: Steps) -> Path:
    return grow(GrowthRequest(model=str(base), steps=list(steps), out=out), Silent()).out


ONE_STEP: dict[str, dict[str, Any]] = {
    "stack": {"g": 2},
    "hyperclone": {"ffn": 96},
    "untie": {},
    "paper-noise": {"amount": 0.01},
    "upcycle": {"experts": 4, "shards": 2},
}


@pytest.mark.parametrize("operator", ONE_STEP)
def test_what_is_new_is_planned_as_the_record_of_the_growth_tells_it(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, operator: str
) -> None:
    base = make_checkpoint(tied=True, attention_bias=False, mlp_bias=False)
    step = (operator, ONE_STEP[operator])
    out = LocalFolder(grown_from(base, tmp_path / "out", [step]))
    recorded = kept_since(read(out).config, manifest_of(out).last_growth)
    assert recorded == kept_by(read(LocalFolder(base)), step)


@pytest.mark.parametrize("model_type", UPCYCLED)
def test_experts_and_routers_are_new_and_what_was_widened_before_them_is_in_part(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, model_type: str
) -> None:
    settings = Case("upcycle", model_type, tied=False, sharded=False, grouped=True).base("float32")
    base = make_checkpoint(model_type, **settings)
    hidden_size = 2 * read(LocalFolder(base)).config["hidden_size"]
    steps: Steps = [("hyperclone", {"hidden_size": hidden_size})]
    steps += [("upcycle", {"experts": 4, "shards": 2}), ("stack", {"g": 2})]
    out = LocalFolder(grown_from(base, tmp_path / "out", steps))
    plan = read(out)
    kept = kept_since(plan.config, manifest_of(out).last_growth)
    assert kept is not None
    assert kept.keys() == plan.tensors.keys()
    of_experts = [name for name in kept if ".experts." in name or ".gate.weight" in name]
    assert of_experts
    assert not any(kept[name].is_some for name in of_experts)
    assert "model.layers.0.self_attn.q_proj.weight" in partly_new(kept)
    assert not kept["model.layers.4.self_attn.q_proj.weight"].is_some


def test_experts_alone_are_trained_after_they_are_made(tmp_path: Path) -> None:
    grow = {"operator": "upcycle", "experts": 4, "shards": 2}
    train = {"tokens": 512, "learning_rate": 1e-2, "trainable": "new", "new_learning_rate": 1e-2}
    recipe = runs.recipe(tmp_path, stages=[{"grow": grow}, {"train": train}])
    final = runs.carry(recipe)
    (grown,) = (Path(recipe["output"]) / "stages" / "00").iterdir()
    ours, theirs = (load_file(one / "model.safetensors") for one in (final, grown))
    moved = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert moved == {name for name in ours if "block_sparse_moe" in name}


def test_copies_of_experts_and_their_rows_of_the_router_are_new(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen3_moe")
    step: tuple[str, dict[str, object]] = ("upcycle", {"experts": 8, "top_k": 2})
    out = LocalFolder(grown_from(base, tmp_path / "out", [step]))
    kept = kept_since(read(out).config, manifest_of(out).last_growth)
    assert kept == kept_by(read(LocalFolder(base)), step)
    assert kept is not None
    assert kept["model.layers.1.mlp.gate.weight"].rows == (True,) * 4 + (False,) * 4
    for expert in range(8):
        one = kept[f"model.layers.1.mlp.experts.{expert}.up_proj.weight"]
        assert (one.is_all, one.is_some) == (expert < 4, expert < 4)


@pytest.mark.parametrize("arguments", [{}, {"top_k": 2}], ids=["all passed", "as many as before"])
def test_training_parts_copies_of_experts_where_something_told_them_apart(
    arguments: dict[str, int], tmp_path: Path
) -> None:
    """Else by rounding at most."""
    growths = [{"experts": 4}, {"experts": 8, **arguments}]
    stages: list[dict[str, Any]] = [{"grow": {"operator": "upcycle", **one}} for one in growths]
    train = {"tokens": 768, "learning_rate": 1e-2}
    recipe = runs.recipe(tmp_path, stages=[*stages, {"train": train}])
    trained = load_file(runs.carry(recipe) / "model.safetensors")
    one, other = (
        trained[f"model.layers.0.block_sparse_moe.experts.{expert}.w3.weight"] for expert in (0, 4)
    )
    apart = float((one - other).norm() / one.norm())
    assert apart > 0.05 if arguments else apart < 1e-5


def test_copies_alone_are_trained_and_the_mixture_before_is_taken_back(tmp_path: Path) -> None:
    """In memory the experts of a layer are one tensor."""
    mixture = {"grow": {"operator": "upcycle", "experts": 4}}
    grow = {"operator": "upcycle", "experts": 8, "top_k": 2, "optimizer_state": "copy"}
    before = [mixture, runs.GROWN[0]]
    final = check_that_it_is_taken_back(tmp_path, grow, before=before)
    (grown,) = (tmp_path / "run" / "stages" / "02").iterdir()
    ours, theirs = (load_file(one / "model.safetensors") for one in (final, grown))
    up = "model.layers.1.block_sparse_moe.experts.{}.w3.weight"
    moved = [not torch.equal(ours[up.format(e)], theirs[up.format(e)]) for e in range(8)]
    assert moved == [False] * 4 + [True] * 4


def check_that_it_is_taken_back(
    folder: Path,
    grow: dict[str, Any],
    *,
    before: Sequence[dict[str, Any]] = runs.GROWN[:1],
    **changes: Any,
) -> Path:
    train = {"tokens": 1024, "learning_rate": 1e-2, "trainable": "new"}
    recipe = runs.recipe(folder, stages=[*before, {"grow": grow}, {"train": train}], **changes)
    final = runs.carry(recipe)
    stages = Path(recipe["output"]) / "stages"
    (base,) = (stages / f"{len(before) - 1:02}").iterdir()
    (grown,) = (stages / f"{len(before):02}").iterdir()
    ours, theirs = (load_file(one / "model.safetensors") for one in (final, grown))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    found = ungrow(final, folder / "back")
    assert not found.unproved
    assert found.sha256 == sha256((base / "model.safetensors").read_bytes()).hexdigest()
    return final


def test_a_growth_is_taken_back_where_its_neurons_alone_were_trained(tmp_path: Path) -> None:
    grow = {"operator": "hyperclone", "ffn": 64, "optimizer_state": "copy"}
    final = check_that_it_is_taken_back(tmp_path, grow)
    lineage = (final / "hfgrow.json").read_text()
    (final / "hfgrow.json").write_text(lineage.replace('"trainable": "new"', '"trainable": "all"'))
    with pytest.raises(ModelError, match="was trained with trainable: all, and old weights moved"):
        ungrow(final, tmp_path / "again")


def test_a_run_carries_no_momentum_of_what_stays_over_a_growth(tmp_path: Path) -> None:
    grow = {"operator": "hyperclone", "ffn": 64, "optimizer_state": "copy"}
    train = {"tokens": 1024, "learning_rate": 1e-2, "trainable": "new"}
    stages = [runs.GROWN[0], {"grow": grow}, {"train": train}]
    recipe = runs.recipe(tmp_path, stages=stages, optimizer={"name": "muon"})
    runs.carry(recipe)
    state = load_file(runs.last_checkpoint(recipe) / "optimizer.safetensors")
    found = [state[f"{UP}/momentum_buffer"], state[f"{DOWN}/momentum_buffer"].T]
    for momentum in found:
        num_old = len(momentum) // 2
        assert not momentum[:num_old].any()
        assert momentum[num_old:].any()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_several_processes_keep_what_is_old_too(tmp_path: Path, strategy: str) -> None:
    grow = {"operator": "hyperclone", "ffn": 64}
    train = {"tokens": 1024, "learning_rate": 1e-2, "trainable": "new"}
    recipe = runs.recipe(
        tmp_path,
        stages=[runs.GROWN[0], {"grow": grow}, {"train": train}],
        world={"processes": 2, "strategy": strategy},
    )
    done = runs.run(recipe, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not ungrow(Path(recipe["output"], "final"), tmp_path / "back").unproved


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "schedule_free_adamw"])
def test_a_growth_whose_layers_were_trained_is_taken_back(tmp_path: Path, optimizer: str) -> None:
    grow = {"operator": "zero-depth", "g": 2}
    check_that_it_is_taken_back(tmp_path, grow, optimizer={"name": optimizer})


def test_an_average_would_round_what_is_old(tmp_path: Path) -> None:
    grow = {"operator": "hyperclone", "ffn": 64}
    train = {"tokens": 1024, "learning_rate": 1e-2, "trainable": "new"}
    recipe = runs.recipe(
        tmp_path,
        stages=[{"grow": grow}, {"train": train}],
        optimizer={"name": "schedule_free_adamw"},
    )
    with pytest.raises(UsageError, match=r"stages\.1: trainable new: .* is new in part, and the"):
        runs.carry(recipe)
