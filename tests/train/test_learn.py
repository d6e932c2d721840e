"""Learned growth as a function: equal to the written model, exact at its start, lean in memory.

Learning maps from text: what is kept, and the settings that fit.
"""

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.data.order import BlockOrder
from hfgrow.data.views import TokenView
from hfgrow.errors import ModelError, TrainingError, UsageError
from hfgrow.growth.grow import grow
from hfgrow.growth.reproduce import reproduce
from hfgrow.growth.request import GrowthRequest
from hfgrow.growth.verify import verify
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators.learn import (
    LEARNABLE,
    Init,
    LearnArguments,
    learned_growth,
    learned_plan,
)
from hfgrow.train.learn import model
from hfgrow.train.learn.command import batch_plan, completed
from hfgrow.train.learn.fit import FitSettings, Fitted, fit, initial_maps
from hfgrow.train.learn.model import LearnedModel
from tests.checkpoints import MakeCheckpoint, tensors_of
from tests.data.corpora import DEMO, prepared, tokenizer, write_stories
from tests.train.learning import CPU, WIDER, batch, lean_loss, loss_of, model_of, shaken, written

BASES = [*((family, False) for family in LEARNABLE), ("llama", True), ("qwen3", True)]


@pytest.mark.parametrize(("family", "tied"), BASES)
def test_the_lean_loss_is_that_of_the_written_model(
    family: str, tied: bool, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(family, tied=tied)
    model, maps = model_of(base, layers=6, **WIDER)
    maps = shaken(maps)
    written(base, maps, tmp_path / "grown", layers=6, **WIDER)
    found = lean_loss(model, maps)
    assert found == pytest.approx(loss_of(tmp_path / "grown"), abs=1e-5)
    assert abs(found - loss_of(base)) > 1e-2


@pytest.mark.parametrize("target", [{"layers": 7}, {"width_g": 2}, {"kv_heads": 4}], ids=str)
def test_depth_alone_and_width_alone_are_written_as_they_were_learned(
    target: dict[str, int], make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen2", tied=True)
    model, maps = model_of(base, **target)
    assert any(name.startswith("depth.") for name in maps) is ("layers" in target)
    maps = shaken(maps)
    written(base, maps, tmp_path / "grown", **target)
    assert lean_loss(model, maps) == pytest.approx(loss_of(tmp_path / "grown"), abs=1e-5)


@pytest.mark.parametrize(("family", "tied"), BASES)
def test_the_fp_init_keeps_the_function(
    family: str, tied: bool, make_checkpoint: MakeCheckpoint
) -> None:
    base = make_checkpoint(family, tied=tied)
    for target in ({"layers": 7}, WIDER, {"g": 2, "width_g": 2}):
        model, maps = model_of(base, **target)
        assert lean_loss(model, maps) == pytest.approx(loss_of(base), abs=1e-5)


@pytest.mark.parametrize("layers", [8, 7])
def test_the_stack_init_is_the_stack_bit_for_bit(
    layers: int, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("smollm3")
    _, maps = model_of(base, layers=layers, init="stack")
    written(base, maps, tmp_path / "learned", layers=layers, init="stack")
    steps = [("stack", {"layers": layers})]
    grow(GrowthRequest(model=str(base), steps=steps, out=tmp_path / "stacked"))
    stacked = tensors_of(tmp_path / "stacked")
    learned = tensors_of(tmp_path / "learned")
    assert all(torch.equal(learned[name], tensor) for name, tensor in stacked.items())


def test_the_ligo_init_is_that_of_the_paper(make_checkpoint: MakeCheckpoint) -> None:
    model, maps = model_of(make_checkpoint(), layers=6, width_g=2, init="ligo")
    assert maps["depth.mlp.down_proj"].argmax(1).tolist() == [0, 1, 2, 3, 0, 1]
    assert torch.equal(maps["hidden.write"][:32], torch.eye(32))
    assert maps["hidden.write"][32:].std() == pytest.approx(64**-0.5, rel=0.1)
    assert torch.equal(maps["hidden.read"], maps["hidden.write"])
    assert lean_loss(model, maps) < 20


def test_a_gradient_reaches_every_map_and_parts_the_copies(make_checkpoint: MakeCheckpoint) -> None:
    model, maps = model_of(make_checkpoint(), g=2, width_g=2)
    for tensor in maps.values():
        tensor.requires_grad_()
    model.loss(batch(), maps)[0].backward()  # type: ignore[no-untyped-call]
    gradients = {name: tensor.grad for name, tensor in maps.items()}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    for name, units in (("hidden.write", 32), ("ffn.up", 48), ("heads.query", 4)):
        one, two = gradients[name][:units], gradients[name][units:]  # type: ignore[index]
        assert (one - two).norm() > 0.05 * one.norm(), name


def test_every_layer_is_told_of_on_the_way_forward_and_back(
    make_checkpoint: MakeCheckpoint,
) -> None:
    model, maps = model_of(make_checkpoint(), g=2)
    for tensor in maps.values():
        tensor.requires_grad_()
    passed: list[None] = []
    loss, _ = model.loss(batch(), maps, lambda: passed.append(None))
    assert len(passed) == model.num_layers == 8
    loss.backward()  # type: ignore[no-untyped-call]
    assert len(passed) == 16


def most_layers_alive(base: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return for how many layers at once grown weights exist, and how often layers are made."""
    model, maps = model_of(base, g=3, width_g=2)
    for tensor in maps.values():
        tensor.requires_grad_()
    alive: dict[int, int] = {}
    made: list[int] = []
    make = model.layer_weights

    def counted(i: int, given: Any) -> dict[str, Tensor]:
        weights = make(i, given)
        number = len(made)
        alive[number] = len(weights)
        for weight in weights.values():
            weakref.finalize(weight.untyped_storage(), gone, number)
        made.append(sum(count > 0 for count in alive.values()))
        return weights

    def gone(number: int) -> None:
        alive[number] -= 1

    monkeypatch.setattr(model, "layer_weights", counted)
    model.loss(batch(), maps)[0].backward()  # type: ignore[no-untyped-call]
    return max(made), len(made)


def test_the_weights_of_one_grown_layer_exist_at_a_time(
    make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_checkpoint()
    assert most_layers_alive(base, monkeypatch) == (1, 24)
    monkeypatch.setattr(model, "checkpoint", lambda run, *args, **_: run(*args))
    assert most_layers_alive(base, monkeypatch) == (12, 12)


def test_families_that_are_more_than_their_maps_are_refused(
    make_checkpoint: MakeCheckpoint,
) -> None:
    for family in FAMILIES.keys() - set(LEARNABLE):
        base = read(LocalFolder(make_checkpoint(family)))
        with pytest.raises(UsageError, match="hfgrow learn knows llama"):
            learned_plan(base, LearnArguments(g=2), None)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, "no target"),
        ({"g": 2, "layers": 8}, "both were given"),
        ({"layers": 4}, "not deeper"),
        ({"width_g": 2, "hidden_size": 64}, "multiplies every width"),
        ({"width_g": 1}, "from 2"),
        ({"hidden_size": 16}, "not between"),
        ({"hidden_size": 50}, "no multiple"),
        ({"g": 2, "init": "best"}, "init cannot be"),
        ({"g": 2, "steps": "ten"}, "steps cannot be"),
        ({"g": True}, "g cannot be"),
        ({"g": 2, "rate": 1}, "no argument rate"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(
    arguments: dict[str, Any], wrong: str, make_checkpoint: MakeCheckpoint
) -> None:
    base = read(LocalFolder(make_checkpoint()))
    with pytest.raises(UsageError, match=wrong):
        learned_plan(base, LearnArguments.of(arguments), None)


def test_maps_that_are_not_those_of_the_growth_are_refused(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint()
    _, maps = model_of(base, g=2)
    with pytest.raises(ModelError, match="not those of this growth"):
        written(base, maps, tmp_path / "grown", g=3)
    grown = tmp_path / "grown"
    written(base, maps, grown, g=2)
    num_outside_layers = 3
    num_in_layers = 2 * (len(tensors_of(base)) - num_outside_layers)
    provenance = verify(grown).provenance
    assert provenance is not None
    assert provenance.num_computed == num_in_layers
    (file,) = grown.glob("learned_maps-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="was changed"):
        verify(grown)
    file.unlink()
    with pytest.raises(ModelError, match="without which the growth cannot be made again"):
        verify(grown)


def test_a_learned_model_grows_again_and_carries_its_maps(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(make_checkpoint(), tmp_path / "base"))
    _, maps = model_of(base, g=2)
    written(base, shaken(maps), tmp_path / "one", g=2)
    steps = [("stack", {"g": 2})]
    grow(GrowthRequest(model=str(tmp_path / "one"), steps=steps, out=tmp_path / "two"))
    assert list((tmp_path / "two").glob("learned_maps-*.safetensors"))
    assert reproduce(str(tmp_path / "two"))


LENGTH = 32


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stories(tmp_path_factory.mktemp("text") / "stories.txt", 40)


@pytest.fixture(scope="module")
def text(stories: Path) -> TokenView:
    return TokenView.of(prepared(stories, stories.parent / "tokens", tokenizer()))


def fitted(
    text: TokenView,
    *,
    initial: dict[str, Tensor] | None = None,
    steps: int = 4,
    lr: float = 1e-3,
    init: Init = "fp",
) -> Fitted:
    """Learn the maps of a growth of the demo model."""
    base = read(LocalFolder(DEMO))
    arguments = LearnArguments(layers=8, init=init)
    plan = learned_plan(base, arguments, None)
    maps = initial or initial_maps(base, learned_growth(base, arguments), arguments)
    return fit(
        LearnedModel(base, plan, sequence_length=LENGTH, device=CPU),
        maps,
        BlockOrder([text.part(0, 80)], [1.0], sequence_length=LENGTH, seed=0),
        [text.part(80, 100)],
        FitSettings(
            steps=steps,
            batch=batch_plan(4 * LENGTH, LENGTH),
            sequence_length=LENGTH,
            lr=lr,
        ),
        CPU,
        Silent(),
    )


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_learning_makes_the_held_out_loss_lower_and_is_repeatable(text: TokenView) -> None:
    found = fitted(text, init="stack", lr=1e-2)
    assert found.loss < found.initial_loss - 0.05
    assert found.kept_step > 0
    assert same(found.maps, fitted(text, init="stack", lr=1e-2).maps)
    # What was kept is what had that loss.
    again = fitted(text, initial=found.maps, init="stack", steps=0)
    assert again.initial_loss == pytest.approx(found.loss, abs=1e-6)


def test_the_init_is_kept_where_learning_makes_it_worse(text: TokenView) -> None:
    base, told = read(LocalFolder(DEMO)), LearnArguments(layers=8)
    initial = initial_maps(base, learned_growth(base, told), told)
    found = fitted(text, lr=1.0)
    assert (found.kept_step, found.loss) == (0, found.initial_loss)
    assert same(found.maps, initial)


def test_an_earlier_step_is_kept_where_a_later_one_is_worse(text: TokenView) -> None:
    few = fitted(text, init="stack", lr=0.05, steps=1)
    more = fitted(text, initial=few.maps, init="stack", lr=1.0, steps=3)
    assert more.loss <= few.loss
    assert more.kept_step < 3


def test_a_loss_that_is_not_finite_stops_learning(text: TokenView) -> None:
    base, told = read(LocalFolder(DEMO)), LearnArguments(layers=8)
    maps = initial_maps(base, learned_growth(base, told), told)
    maps["depth.mlp.up_proj"][0, 0] = float("inf")
    with pytest.raises(TrainingError, match="no finite held-out loss"):
        fitted(text, initial=maps)


def test_the_usual_settings_fit_the_base_and_the_growth() -> None:
    base = read(LocalFolder(DEMO))
    deeper = completed(LearnArguments(g=2), base)
    wider = completed(LearnArguments(width_g=2), base)
    assert (deeper.steps, deeper.seed, deeper.sequence_length) == (100, 0, 512)
    assert (deeper.batch_tokens, deeper.lr, wider.lr) == (1 << 14, 1e-3, 1e-4)
    assert batch_plan(96 * 512, 512).micro_batch_size == 32
    assert batch_plan(5 * 512, 512).num_samples == 5
