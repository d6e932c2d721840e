"""How the errors of a run are worded: what commands take as an option, a recipe has as a key.

What is typed as `--hidden-size 512` and `hfgrow stack MODEL --g 4` is `hidden_size: 512` and
`operator: stack, g: 4` inside a run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from hfgrow.errors import GrowthError, Speech, command
from hfgrow.plan.operators import ALL_OPERATORS, OPERATORS

# What overrides put in for arguments that are no operator's.
_PATHS = {
    "document_mask": "data.document_mask",
    "dtype": "dtype",
    "out": "output",
    "precision": "precision",
    "repo": "push.repo",
    "sequence_length": "data.sequence_length",
    "trackers": "trackers",
}
_FLAGS = {"public": "push.private=false", "private": "push.private=true"}
# A recipe pushes to a repository of its own.
_LACKING = ("create_pr", "exist_ok")


def keys(front: Speech) -> Speech:
    """Return how the errors of a run are worded.

    Args:
        front: How whoever starts the run writes what is no key of a stage: `overrides`, which put a
            value into the recipe, and what is asked of the run itself, such as `resume`.
    """

    def spelt(name: str, value: str) -> str | None:
        if name in _LACKING:
            return None
        if name in _FLAGS:
            return front.argument("overrides", _FLAGS[name])
        if name in _PATHS:
            path = _PATHS[name]
            return front.argument("overrides", f"{path}={value}") if value else path
        if name in _arguments() or name == "text_column":
            return f"{name}: {value}" if value else name
        return front.argument(name, value)

    return Speech(spelt, _growth)


def _growth(operator: str, given: Mapping[str, str]) -> str:
    if operator not in OPERATORS or not _arguments().issuperset(given):
        return command(f"{operator} MODEL", **given)
    return ", ".join(f"{key}: {value}" for key, value in {"operator": operator, **given}.items())


@cache
def _arguments() -> frozenset[str]:
    """Return what the operators take, by name."""
    taken = (operator.parameters for operator in ALL_OPERATORS.values())
    return frozenset(parameter.name for parameters in taken for parameter in parameters)


@contextmanager
def in_keys(front: Speech) -> Iterator[None]:
    """Let the errors of the block speak of keys; `front` is that of `keys`."""
    try:
        yield
    except GrowthError as error:
        error.speak(keys(front))
        raise
