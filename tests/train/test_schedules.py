"""The learning rate is a pure function of the tokens: where it starts, holds, falls and ends."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.train.recipe.stages import Train
from hfgrow.train.schedules import Kind, Schedule, new_schedule_of, schedule_of

KINDS: tuple[Kind, ...] = ("wsd", "cosine", "constant")


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    kind = draw(st.sampled_from(KINDS))
    tokens = draw(st.integers(1000, 10**12))
    warmup = draw(st.integers(0, tokens // 2))
    return Schedule(
        kind=kind,
        tokens=tokens,
        warmup_tokens=warmup,
        decay_tokens=draw(st.integers(1, tokens - warmup)) if kind == "wsd" else 0,
        final_factor=0.0 if kind == "constant" else draw(st.floats(0, 1)),
    )


@given(schedules())
def test_every_schedule_starts_at_zero_or_at_its_peak(schedule: Schedule) -> None:
    assert schedule.factor(0) == (0 if schedule.warmup_tokens else 1)
    assert schedule.factor(schedule.warmup_tokens) == pytest.approx(1, abs=1e-12)


@given(schedules())
def test_every_schedule_ends_where_it_says_and_stays_there(schedule: Schedule) -> None:
    end = 1 if schedule.kind == "constant" else schedule.final_factor
    assert schedule.factor(schedule.tokens) == pytest.approx(end, abs=1e-12)
    assert schedule.factor(2 * schedule.tokens) == schedule.factor(schedule.tokens)


@given(schedules(), st.floats(0, 1))
def test_every_schedule_is_continuous(schedule: Schedule, share: float) -> None:
    step = schedule.tokens * 1e-9
    here = share * schedule.tokens
    change = abs(schedule.factor(here + step) - schedule.factor(here))
    steepest = max(
        step / max(1, schedule.warmup_tokens),
        math.sqrt(step / max(1, schedule.decay_tokens)),
        math.pi / 2 * step / (schedule.tokens - schedule.warmup_tokens),
    )
    assert change <= steepest + 1e-6


@given(schedules(), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_every_schedule_rises_once_and_then_never_again(
    schedule: Schedule, shares: list[float]
) -> None:
    early, late = sorted(share * schedule.tokens for share in shares)
    if late <= schedule.warmup_tokens:
        assert schedule.factor(early) <= schedule.factor(late)
    if early >= schedule.warmup_tokens:
        assert schedule.factor(early) >= schedule.factor(late)
    assert 0 <= schedule.factor(early) <= 1 + 1e-12


def test_wsd_warms_up_holds_and_decays() -> None:
    schedule = Schedule(kind="wsd", tokens=1000, warmup_tokens=100, decay_tokens=200)
    places = (0, 50, 100, 500, 800, 850, 900, 1000)
    assert [schedule.factor(t) for t in places] == [0, 0.5, 1, 1, 1, 0.5, 1 - math.sqrt(0.5), 0]


def test_one_minus_sqrt_falls_fast_at_first() -> None:
    schedule = Schedule(kind="wsd", tokens=1000, decay_tokens=100, final_factor=0.1)
    assert schedule.factor(925) == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(0.25)))


def test_cosine_is_half_way_down_in_the_middle_of_its_fall() -> None:
    schedule = Schedule(kind="cosine", tokens=1100, warmup_tokens=100, final_factor=0.2)
    assert schedule.factor(600) == pytest.approx(0.6)


def test_no_step_is_wasted_on_a_learning_rate_of_zero() -> None:
    schedule = Schedule(kind="wsd", tokens=100, warmup_tokens=20, decay_tokens=20)
    steps = [schedule.of_step(tokens, 10) for tokens in range(0, 100, 10)]
    assert steps[0] == 0.25
    assert min(steps) > 0
    assert steps[2:8] == [1] * 6


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_new_rises_for_longer_and_is_never_above_the_rest(kind: Kind) -> None:
    spans = {"tokens": 1000, "learning_rate": 1e-3, "warmup": 100, "new_warmup": 400}
    train = Train.model_validate({**spans, "schedule": kind})
    new, rest = new_schedule_of(train, 10), schedule_of(train, 10)
    assert new is not None
    assert [new.factor(tokens) for tokens in (0, 100, 200)] == [0, 0.25, 0.5]
    for tokens in range(0, 1001, 10):
        assert new.factor(tokens) == min(tokens / 400, rest.factor(tokens))
