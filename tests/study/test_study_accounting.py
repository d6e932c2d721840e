"""What a run has cost, by hand."""

import pytest

from hfgrow.study.accounting import ACCOUNTINGS, StageCost, spent_at, total

BASE = StageCost(0, 100, 10, 60.0, 50.0, is_base=True)
GROWN = StageCost(2, 300, 40, 240.0, 200.0, is_base=False)


@pytest.mark.parametrize(
    ("tokens", "all_in", "marginal", "after", "exact"),
    [
        (0, 0.0, 0.0, 0, 0.0),
        (50, 3000.0, 0.0, 0, 2500.0),
        (100, 6000.0, 0.0, 0, 5000.0),
        (150, 18000.0, 12000.0, 50, 15000.0),
        (400, 78000.0, 72000.0, 300, 65000.0),
    ],
)
def test_a_run_is_charged_stage_by_stage(
    tokens: int, all_in: float, marginal: float, after: int, exact: float
) -> None:
    spent = spent_at((BASE, GROWN), tokens)
    assert [read(spent) for read in ACCOUNTINGS.values()] == [all_in, marginal, after, exact]


def test_all_stages_together_are_the_last_token() -> None:
    assert total((BASE, GROWN)) == spent_at((BASE, GROWN), 400).flops


def test_without_a_base_all_accountings_count_the_same_tokens() -> None:
    spent = spent_at((GROWN,), 200)
    assert spent.tokens == spent.tokens_after_base
    assert spent.flops == spent.flops_after_base


def test_a_growth_that_learns_is_charged_once_the_run_is_past_it() -> None:
    """Its tokens are none of those that the run counts."""
    learned = StageCost(1, 20, 40, 240.0, 200.0, is_base=False, is_growth=True)
    costs = (BASE, learned, GROWN)
    before, after = spent_at(costs, 100, stage=1), spent_at(costs, 100, stage=2)
    assert (before.tokens, before.flops, before.tokens_after_base) == (100, 6000.0, 0)
    assert (after.tokens, after.flops, after.tokens_after_base) == (120, 10800.0, 20)
    assert total(costs) == spent_at(costs, 400).flops
