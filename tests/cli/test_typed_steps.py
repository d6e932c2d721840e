"""An operator with its options as one text, as `hfgrow compare --op` takes it."""

from importlib import import_module

import pytest

from hfgrow.errors import UsageError

typed_step = import_module("hfgrow_cli.typed_steps").typed_step


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("stack --g 2", ("stack", {"g": 2})),
        ("stack --layers=6 --remainder head", ("stack", {"layers": 6, "remainder": "head"})),
        ("partial 12-34*2", ("partial", {"pattern": "12-34*2"})),
        ("paper-noise --amount 1e-2", ("paper-noise", {"amount": 0.01})),
        ("untie", ("untie", {})),
    ],
    ids=str,
)
def test_an_operator_is_read_as_it_is_typed(text: str, step: tuple[str, dict[str, object]]) -> None:
    assert typed_step(text) == step


@pytest.mark.parametrize("text", ["", "stack 'x", "stack 2", "stack --g", "stack --g two"])
def test_what_is_no_operator_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        typed_step(text)
