"""Optimizers: the algorithms of the papers, exact resume, and one state each.

What trains, and how fast: decided by the layer map of the last growth.
"""

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Linear, Module, Parameter, Sequential, Tanh

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.operators import apply
from hfgrow.plan.plan import LayerSource
from hfgrow.train.checkpoints import group_state, put_optimizer
from hfgrow.train.optimizers import (
    MuonAdamW,
    ParameterGroup,
    averaged,
    make_optimizer,
    new_layers,
    parameter_groups,
    set_learning_rates,
)
from hfgrow.train.recipe.parts import AdamW, Muon, ScheduleFreeAdamW
from tests.checkpoints import MakeCheckpoint, load
from tests.families import EVERY_DENSE_FAMILY
from tests.train import runs

Settings = AdamW | ScheduleFreeAdamW | Muon
SETTINGS: tuple[Settings, ...] = (
    AdamW(weight_decay=0.1),
    ScheduleFreeAdamW(weight_decay=0.1, r=0.5),
    Muon(weight_decay=0.1),
)
PEAK = 0.02


def network() -> Sequential:
    torch.manual_seed(3)
    return Sequential(Linear(6, 8), Tanh(), Linear(8, 4), Tanh(), Linear(4, 1))


def groups_of(model: Module) -> tuple[ParameterGroup, ...]:
    """The middle matrix inside, as a layer stands between embedding and head."""
    named = dict(model.named_parameters())
    inside = [name for name in named if name == "2.weight"]
    outside = [name for name in named if named[name].ndim == 2 and name not in inside]
    vectors = [name for name in named if named[name].ndim == 1]

    def group(names: list[str], *, decays: bool, is_inside: bool) -> ParameterGroup:
        return ParameterGroup(tuple(names), tuple(named[n] for n in names), PEAK, decays, is_inside)

    return (
        group(inside, decays=True, is_inside=True),
        group(outside, decays=True, is_inside=False),
        group(vectors, decays=False, is_inside=False),
    )


def step(model: Module, optimizer: torch.optim.Optimizer, number: int) -> float:
    """One step on a batch that depends on its number, with a warmup of 5 steps."""
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(16, 6, generator=generator)
    factor = min(1.0, (number + 1) / 5)
    set_learning_rates(optimizer, factor, factor)
    loss: Any = (model(inputs) - inputs.sin().sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
def test_every_optimizer_lowers_the_loss(settings: Settings) -> None:
    model = network()
    optimizer = make_optimizer(settings, groups_of(model))
    losses = [step(model, optimizer, number) for number in range(60)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
@pytest.mark.parametrize("measured", [False, True], ids=["", "measured"])
def test_every_optimizer_resumes_bit_for_bit(
    settings: Settings, measured: bool, tmp_path: Path
) -> None:
    straight = network()
    optimizer = make_optimizer(settings, groups_of(straight))
    for number in range(7):
        step(straight, optimizer, number)
    if measured:
        with averaged(optimizer):
            straight(torch.zeros(1, 6))
    torch.save(
        {"model": straight.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "s"
    )
    for number in range(7, 15):
        step(straight, optimizer, number)

    resumed = network()
    again = make_optimizer(settings, groups_of(resumed))
    saved = torch.load(tmp_path / "s", weights_only=True)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    for number in range(7, 15):
        step(resumed, again, number)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
def test_weight_decay_pulls_at_the_groups_that_decay(settings: Settings) -> None:
    groups = groups_of(network())
    optimizer = make_optimizer(settings, groups)
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    assert decays == [0.1, 0.1, 0.0]


def test_learning_rates_are_factors_of_the_peaks() -> None:
    optimizer = make_optimizer(AdamW(), groups_of(network()))
    optimizer.param_groups[1]["peak"] = 0.5
    set_learning_rates(optimizer, 0.1, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.1 * PEAK, 0.05, 0.1 * PEAK]
    )


def test_measuring_twice_changes_nothing_that_matters() -> None:
    """The way to x and back is exact but for rounding."""
    model = network()
    optimizer = make_optimizer(ScheduleFreeAdamW(), groups_of(model))
    for number in range(5):
        step(model, optimizer, number)
    before = copy.deepcopy(model.state_dict())
    for _ in range(50):
        with averaged(optimizer):
            pass
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-6)


def test_looking_at_the_mean_before_the_first_step_leaves_no_state() -> None:
    """An empty entry would make distributed checkpoints load nothing."""
    model = network()
    optimizer = make_optimizer(ScheduleFreeAdamW(), groups_of(model))
    with averaged(optimizer):
        pass
    assert not optimizer.state


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
def test_a_sharded_state_resumes_bit_for_bit(settings: Settings, mesh: Any, tmp_path: Path) -> None:
    """Also where the mean was looked at before loading."""
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.fsdp import fully_shard

    def sharded() -> tuple[Any, torch.optim.Optimizer]:
        model = network()
        fully_shard(model, mesh=mesh)
        return model, make_optimizer(settings, groups_of(model))

    def state(model: Any, optimizer: Any) -> dict[str, Any]:
        weights, moments = get_state_dict(model, optimizer)
        return {"model": weights, "optimizer": moments}

    model, optimizer = sharded()
    for number in range(4):
        step(model, optimizer, number)
    save(state(model, optimizer), checkpoint_id=tmp_path / "saved")
    straight = [step(model, optimizer, number) for number in range(4, 9)]

    model, optimizer = sharded()
    with averaged(optimizer):
        pass
    found = state(model, optimizer)
    load(found, checkpoint_id=tmp_path / "saved")
    set_state_dict(
        model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"]
    )
    assert [step(model, optimizer, number) for number in range(4, 9)] == straight


def test_muon_takes_the_matrices_of_layers_and_adamw_the_rest() -> None:
    model = network()
    optimizer = make_optimizer(Muon(), groups_of(model))
    step(model, optimizer, 0)
    kept = {name: set(optimizer.state[p]) for name, p in model.named_parameters()}
    assert kept.pop("2.weight") == {"momentum_buffer"}
    assert all(state == {"step", "exp_avg", "exp_avg_sq"} for state in kept.values())


def test_muon_is_torchs_own_on_its_matrices() -> None:
    one, other = Parameter(torch.eye(4, 6)), Parameter(torch.eye(4, 6))
    group = ParameterGroup(("m",), (one,), PEAK, decays=True, is_inside=True)
    ours = make_optimizer(Muon(weight_decay=0.1), [group])
    torchs: Any = torch.optim.Muon(
        [other], lr=PEAK, adjust_lr_fn="match_rms_adamw", weight_decay=0.1
    )
    for number in range(5):
        generator = torch.Generator().manual_seed(number)
        one.grad = torch.randn(4, 6, generator=generator)
        other.grad = one.grad.clone()
        ours.step()
        torchs.step()
    assert torch.equal(one, other)


def test_a_torch_without_muon_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UsageError, match=r"muon needs torch 2\.9"):
        MuonAdamW([], [], muon_options={}, adamw_options={})


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.name)
def test_a_closure_is_called_with_gradients_on(settings: Settings) -> None:
    model = network()
    optimizer = make_optimizer(settings, groups_of(model))

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0


RATE = 1e-3
# Four layers of the tiny model: the second and the fourth inserted, as LLaMA-Pro does.
INTERLEAVED = (
    LayerSource(0),
    LayerSource(0, "zero"),
    LayerSource(1),
    LayerSource(1, "zero"),
)


def names_of(groups: Iterable[ParameterGroup]) -> set[str]:
    return {name for group in groups for name in group.names}


def layers_of(groups: Iterable[ParameterGroup]) -> set[int]:
    return {int(n.split(".")[2]) for n in names_of(groups) if n.startswith("model.layers.")}


@pytest.fixture
def model(make_checkpoint: MakeCheckpoint) -> Any:
    return load(make_checkpoint())[0]


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("model_type", EVERY_DENSE_FAMILY)
def test_every_parameter_is_in_one_group_and_matrices_decay(
    model_type: str, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    model, _ = load(make_checkpoint(model_type, tied=tied))
    groups = parameter_groups(model, learning_rate=RATE)
    named = dict(model.named_parameters())
    assert sorted(name for group in groups for name in group.names) == sorted(named)
    for group in groups:
        for name, parameter in zip(group.names, group.parameters, strict=True):
            assert parameter is named[name]
            assert group.decays == name.endswith(".weight") * ("norm" not in name)
            assert group.is_inside == (group.decays and ".layers." in name)
            assert group.learning_rate == RATE


@pytest.mark.parametrize(
    ("operator", "arguments", "new"),
    [
        ("zero-depth", {"layers": 6}, [1, 4]),
        ("stack", {"g": 2}, [4, 5, 6, 7]),
        ("interpolate", {"g": 2}, [1, 3, 5, 7]),
        ("partial", {"pattern": "1-23*2-4"}, [3, 4]),
        ("random-depth", {"layers": 6}, [4, 5]),
        ("hyperclone", {"g": 2}, []),
    ],
)
def test_what_an_operator_adds_is_new(
    operator: str, arguments: dict[str, object], new: list[int], make_checkpoint: MakeCheckpoint
) -> None:
    plan = apply(read(LocalFolder(make_checkpoint())), operator, arguments)
    assert new_layers(plan.layer_map) == new


def test_only_the_inserted_blocks_train(model: Any) -> None:
    """Not the last two: LLaMA-Pro's are interleaved."""
    groups = parameter_groups(model, learning_rate=RATE, trainable="new", layer_map=INTERLEAVED)
    assert layers_of(groups) == {1, 3}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == names_of(groups)


def test_embeddings_and_head_train_with_what_is_new(model: Any) -> None:
    groups = parameter_groups(
        model, learning_rate=RATE, trainable="new+embeddings", layer_map=INTERLEAVED
    )
    outside = {n for n in names_of(groups) if not n.startswith("model.layers.")}
    assert outside == {"model.embed_tokens.weight", "lm_head.weight"}
    assert layers_of(groups) == {1, 3}


def test_patterns_choose_by_tensor_name(model: Any) -> None:
    groups = parameter_groups(
        model, learning_rate=RATE, trainable=["model.layers.[01].*", "*o_proj.weight"]
    )
    assert layers_of(groups) == {0, 1, 2, 3}
    late = {n for n in names_of(groups) if n.startswith(("model.layers.2.", "model.layers.3."))}
    assert late == {f"model.layers.{i}.self_attn.o_proj.weight" for i in (2, 3)}


def test_what_is_new_has_groups_of_its_own_only_where_it_warms_up_by_itself(model: Any) -> None:
    """Checkpoints of stages without that are as old as checkpoints, and have as many groups."""
    plain = parameter_groups(model, learning_rate=RATE)
    grown = parameter_groups(model, learning_rate=RATE, layer_map=INTERLEAVED)
    apart = parameter_groups(model, learning_rate=RATE, layer_map=INTERLEAVED, new_warms_up=True)
    assert grown == plain
    assert layers_of([group for group in apart if group.is_new]) == {1, 3}
    assert layers_of([group for group in apart if not group.is_new]) == {0, 2}


def test_an_optimizer_with_other_groups_than_were_kept_goes_on_with_the_same_average(
    model: Any,
) -> None:
    few = parameter_groups(model, learning_rate=RATE)
    many = parameter_groups(
        model, learning_rate=RATE, layer_map=INTERLEAVED, new_learning_rate=2 * RATE
    )
    kept = make_optimizer(ScheduleFreeAdamW(), few)
    for group in kept.param_groups:
        group.update({"k": 7, "weight_sum": 3.0, "lr_max": RATE})
    found = make_optimizer(ScheduleFreeAdamW(), many)
    put_optimizer(model, found, {}, group_state(kept))
    assert len(found.param_groups) > len(kept.param_groups)
    for group in found.param_groups:
        assert group["k"] == 7
        assert group["lr_max"] == group["peak"]
        assert group["weight_sum"] == 3.0 * (group["peak"] / RATE) ** group["weight_lr_power"]


def test_the_next_stage_can_thaw_what_this_one_froze(model: Any) -> None:
    parameter_groups(model, learning_rate=RATE, trainable="new", layer_map=INTERLEAVED)
    parameter_groups(model, learning_rate=RATE)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_learning_rates_go_by_where_a_parameter_stands(model: Any) -> None:
    groups = parameter_groups(
        model,
        learning_rate=RATE,
        layer_map=INTERLEAVED,
        new_learning_rate=5e-3,
        embedding_learning_rate=2e-4,
    )
    rates = {name: group.learning_rate for group in groups for name in group.names}
    assert rates["model.layers.1.mlp.up_proj.weight"] == 5e-3
    assert rates["model.layers.2.mlp.up_proj.weight"] == RATE
    assert rates["model.layers.3.input_layernorm.weight"] == 5e-3
    assert rates["model.norm.weight"] == RATE
    assert rates["lm_head.weight"] == rates["model.embed_tokens.weight"] == 2e-4


def test_patterns_that_match_nothing_are_listed(model: Any) -> None:
    with pytest.raises(UsageError) as error:
        parameter_groups(
            model, learning_rate=RATE, trainable=["*.mlp.*", "layers.0.*", "*.qproj.*"]
        )
    assert str(error.value) == "trainable: no tensor name matches layers.0.*, *.qproj.*"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "new"}, "trainable new matches nothing: nothing has grown"),
        (
            {"trainable": "new+embeddings", "layer_map": [LayerSource(i) for i in range(4)]},
            "the last growth added nothing",
        ),
        ({"trainable": "last"}, "trainable last is not one of all, new, new"),
        ({"trainable": []}, "no tensor name matches an empty list"),
        ({"new_learning_rate": 1e-2}, "new_learning_rate 0.01 matches nothing that trains"),
        (
            {"trainable": ["*.mlp.*"], "embedding_learning_rate": 1e-2},
            "embedding_learning_rate 0.01 matches nothing that trains",
        ),
        ({"layer_map": [LayerSource(0)]}, "layer map of the last growth has 1 layers, the model 4"),
    ],
)
def test_what_matches_nothing_is_an_error(
    options: dict[str, Any], message: str, model: Any
) -> None:
    with pytest.raises(UsageError) as error:
        parameter_groups(model, learning_rate=RATE, **options)
    assert message in str(error.value)


def test_the_rates_that_are_told_are_those_of_what_trains(tmp_path: Path) -> None:
    train = {"tokens": 1024, "learning_rate": 1e-3, "warmup": 0, "schedule": "constant"}
    own = {**train, "trainable": "new", "new_learning_rate": 1e-2}
    both = {**train, "new_learning_rate": 1e-2}
    grow = {"grow": {"operator": "zero-depth", "g": 2}}
    recipe = runs.recipe(tmp_path, stages=[grow, {"train": own}, {"train": both}])
    runs.carry(recipe)
    steps = [line for line in runs.lines(recipe) if "loss" in line]
    assert [(line["learning_rate"], line.get("learning_rates")) for line in steps[::4]] == [
        (1e-2, None),
        (1e-2, [1e-3, 1e-2]),
    ]
