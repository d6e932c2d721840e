"""Growth steps from a YAML file: a list of operators, each with its arguments.

- zero-depth: {g: 2}
- hyperclone-noisy: {hidden-size: 864, seed: 1}
- untie
"""

import inspect
import re
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.strict import parse_yaml
from hfgrow.errors import UsageError, printable
from hfgrow.fields import is_argument
from hfgrow.operators import MAX_STEPS, OPERATORS

_MAX_NBYTES = 1 << 16
# 1e-3 is a number to people and JSON, but text to YAML 1.1.
_SCIENTIFIC = re.compile(r"[-+]?\d+[eE][-+]?\d+", re.ASCII)


def read_steps(path: Path) -> list[tuple[str, dict[str, object]]]:
    """Read the steps of a growth.

    Args:
        path: A YAML list. An entry is the name of an operator, or a mapping from the name to the
            arguments, as `--help` shows them, with or without `-` for `_`.

    Raises:
        UsageError: The file cannot be read, is no such list, or names an operator or argument that
            is none.
    """
    shown = printable(path, 200)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_NBYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the steps {shown}: {error.strerror}") from error
    if len(raw) > _MAX_NBYTES:
        raise UsageError(f"the steps {shown} have more than {_MAX_NBYTES} bytes")
    try:
        content = parse_yaml(raw)
    except UsageError as error:
        raise UsageError(f"the steps {shown}: {error}", hint=error.hint) from error
    if not isinstance(content, list) or not content:
        found = "nothing" if content in (None, []) else f"a {type(content).__name__}"
        raise UsageError(
            f"the steps {shown} hold {found}, not a list of operators",
            hint="such as: - stack: {g: 2}",
        )
    if len(content) > MAX_STEPS:
        raise UsageError(f"the steps {shown} are {len(content)}, more than {MAX_STEPS}")
    return [_step(f"entry {i} of {shown}", entry) for i, entry in enumerate(content, 1)]


def _step(where: str, entry: Any) -> tuple[str, dict[str, object]]:
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UsageError(
            f"{where} is not one operator with its arguments", hint="such as: - stack: {g: 2}"
        )
    ((name, given),) = entry.items()
    if not isinstance(name, str) or name not in OPERATORS:
        raise UsageError(
            f"{where}: there is no operator {printable(name)}",
            hint=f"one of {', '.join(OPERATORS)}",
        )
    known = list(inspect.signature(OPERATORS[name].function).parameters)[1:]
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise UsageError(
            f"{where}: the arguments of {name} are {printable(repr(given))}, not a mapping",
            hint=f"such as: - {name}: {{{known[0]}: ...}}" if known else f"such as: - {name}",
        )
    arguments: dict[str, object] = {}
    for key, value in given.items():
        argument = str(key).replace("-", "_")
        if argument not in known:
            raise UsageError(
                f"{where}: {name} has no argument {printable(key)}",
                hint=f"it has {', '.join(known)}" if known else "",
            )
        if argument in arguments:
            raise UsageError(f"{where}: {printable(key)} is given twice")
        if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
            value = float(value)
        if not is_argument(value):
            raise UsageError(
                f"{where}: {printable(key)} cannot be {printable(repr(value))}",
                hint=f"hfgrow operators {name} says what it takes",
            )
        arguments[argument] = value
    return name, arguments
