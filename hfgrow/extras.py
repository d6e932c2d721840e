"""What only some commands need, asked for before any work is done without it."""

import sys
from importlib.util import find_spec
from pathlib import Path

from hfgrow.errors import UsageError


def require(what: str, *packages: str) -> None:
    """Refuse something for which a package is missing.

    Args:
        what: What needs them, as the start of the message: `--dtype`.
        packages: Names to import.

    Raises:
        UsageError: One of them is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{what} needs {' and '.join(missing)}, which {'are' if missing[1:] else 'is'} not "
            "installed",
            hint=f"{Path(sys.executable).name} -m pip install 'hfgrow[train]'",
        )
