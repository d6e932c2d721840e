"""Names of outputs: short, telling, the same for the same request."""

import pytest

from hfgrow.growth.steps import suffix_of, suffix_of_steps

NAMES: list[tuple[str, dict[str, object], str]] = [
    ("stack", {"g": 2}, "stack-g2"),
    ("stack", {"layers": 6, "remainder": "tail"}, "stack-l6"),
    ("stack", {"layers": 6, "remainder": "head"}, "stack-l6-head"),
    ("stack", {"g": None, "layers": 6}, "stack-l6"),
    ("solar", {"overlap": 8}, "solar"),
    ("solar", {"overlap": 4}, "solar-o4"),
    ("partial", {"pattern": "[1:8]-[9:16]*3"}, "partial-1to8-9to16x3"),
    ("random-depth", {"g": 2, "seed": 5, "mask": 0.5}, "random-depth-g2"),
    ("unknown", {"hidden_size": 864, "fast": True, "slow": False}, "unknown-hs864-fast-no-slow"),
]


@pytest.mark.parametrize(("operator", "arguments", "name"), NAMES)
def test_a_step_is_named_after_what_tells_it(
    operator: str, arguments: dict[str, object], name: str
) -> None:
    assert suffix_of(operator, arguments) == name


def test_many_steps_are_named_by_a_hash_that_stays() -> None:
    steps: list[tuple[str, dict[str, object]]] = [("zero-depth", {"g": 2})] * 9
    assert suffix_of_steps(steps[:2]) == "zero-depth-g2-zero-depth-g2"
    assert suffix_of_steps(steps) == suffix_of_steps(list(steps))
    assert suffix_of_steps(steps).startswith("9-steps-")
    assert suffix_of_steps(steps) != suffix_of_steps([*steps[1:], ("zero-depth", {"g": 3})])
