"""How the errors of a run are worded: what commands take as an option, a recipe has as a key.

On the command line `--hidden-size 512` and `hfgrow stack MODEL --g 4`, inside a run
`hidden_size: 512` and `operator: stack, g: 4`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from hfgrow.errors import GrowthError, Speech, command
from hfgrow.plan.operators import ALL_OPERATORS, OPERATORS

# What `--set` puts in for arguments that are no operator's.
_PATHS = {
    "document_mask": "data.document_mask",
    "dtype": "dtype",
    "out": "output",
    "precision": "precision",
    "repo": "push.repo",
    "sequence_length": "data.sequence_length",
    "trackers": "trackers",
}
_FLAGS = {"public": "--set push.private=false", "private": "--set push.private=true"}
# A recipe pushes to a repository of its own.
_LACKING = ("create_pr", "exist_ok")


def _argument(name: str, value: str) -> str | None:
    if name in _LACKING:
        return None
    if name in _FLAGS:
        return _FLAGS[name]
    if name in _PATHS:
        return f"--set {_PATHS[name]}={value}" if value else _PATHS[name]
    if name in _arguments() or name == "text_column":
        return f"{name}: {value}" if value else name
    return f"--{name.replace('_', '-')}" + (f" {value}" if value else "")


def _growth(operator: str, given: Mapping[str, str]) -> str:
    if operator not in OPERATORS or not _arguments().issuperset(given):
        return command(f"{operator} MODEL", **given)
    return ", ".join(f"{key}: {value}" for key, value in {"operator": operator, **given}.items())


@cache
def _arguments() -> frozenset[str]:
    """Return what the operators take, by name."""
    taken = (operator.parameters for operator in ALL_OPERATORS.values())
    return frozenset(parameter.name for parameters in taken for parameter in parameters)


KEYS = Speech(_argument, _growth)


@contextmanager
def in_keys() -> Iterator[None]:
    """Let the errors of the block speak of keys."""
    try:
        yield
    except GrowthError as error:
        error.speak(KEYS)
        raise
