"""A short round of what `make fuzz` does for long."""

import pytest

from tests.fuzz.__main__ import at_random
from tests.fuzz.targets import TARGETS, check_answer, seeds


@pytest.mark.case("A26")
@pytest.mark.parametrize("target", TARGETS)
def test_changed_bytes_are_accepted_or_refused_and_nothing_else(target: str) -> None:
    assert any(check_answer(target, seed) for seed in seeds(target))
    assert 0 < at_random(target, seconds=30, max_runs=1500) < 1500
