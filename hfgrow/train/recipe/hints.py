"""Errors in the words of a recipe: where commands have an option, a recipe has a key.

Operators and text name options, as one types them: `--hidden-size 512`, `hfgrow stack MODEL --g 4`.
Inside a run these are `hidden_size: 512` and `operator: stack, g: 4`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from hfgrow.errors import GrowthError
from hfgrow.plan.operators import ALL_OPERATORS, OPERATORS

_WORDS = (
    ("--out DIR", "--set output=DIR"),
    (", --create-pr, or --exist-ok to add to it", ""),
    ("--repo ", "--set push.repo="),
    ("--public", "--set push.private=false"),
    ("--private", "--set push.private=true"),
    ("--dtype ", "--set dtype="),
    ("--sequence-length ", "--set data.sequence_length="),
    ("--text-column ", "text_column: "),
)
_COMMAND = re.compile(r"(hfgrow [a-z][^,;]*)")
_GROWTH = re.compile(r"hfgrow ([a-z0-9-]+) MODEL((?: --[a-z-]+ \S+)+)")
_OPTION = re.compile(r"--([a-z][a-z-]*)( (?=\d))?")


def as_keys(text: str) -> str:
    """Return a message or hint with the keys of a recipe for options that `hfgrow train` lacks."""
    parts = _COMMAND.split(text)
    return "".join(_command(p) if i % 2 else _options(p) for i, p in enumerate(parts))


@contextmanager
def in_keys() -> Iterator[None]:
    """Let the errors of the block speak as `as_keys` does."""
    try:
        yield
    except GrowthError as error:
        error.args, error.hint = (as_keys(str(error)),), as_keys(error.hint)
        raise


def _options(text: str) -> str:
    for option, key in _WORDS:
        text = text.replace(option, key)

    def key_of(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        if name not in _arguments():
            return found[0]
        return f"{name}: " if found[2] else name

    return _OPTION.sub(key_of, text)


def _command(text: str) -> str:
    """Return a growth as the keys of its stage; any other command stays one."""
    found = _GROWTH.fullmatch(text)
    if not found or found[1] not in OPERATORS:
        return text
    words = found[2].split()
    keys = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    if not _arguments().issuperset(keys):
        return text
    given = ", ".join(f"{key}: {value}" for key, value in zip(keys, words[1::2], strict=True))
    return f"operator: {found[1]}, {given}"


@cache
def _arguments() -> frozenset[str]:
    """Return what the operators are told, by name."""
    told = (operator.parameters for operator in ALL_OPERATORS.values())
    return frozenset(parameter.name for parameters in told for parameter in parameters)
