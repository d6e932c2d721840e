"""Learning maps from text: what is kept, and the settings that fit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.data.order import BlockOrder
from hfgrow.data.views import TokenView
from hfgrow.errors import TrainingError
from hfgrow.plan.operators.learn import LearnArguments, learned_growth, learned_plan
from hfgrow.train.learn.command import batch_plan, completed
from hfgrow.train.learn.fit import FitSettings, Fitted, fit, initial_maps
from hfgrow.train.learn.model import LearnedModel
from tests.train.corpora import DEMO, prepared, tokenizer, write_stories
from tests.train.learning import CPU

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
    init: str = "fp",
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
