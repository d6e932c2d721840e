"""What only some commands need, asked for before any work is done without it."""

import shlex
import sys
from importlib.util import find_spec

from hfgrow.errors import UsageError
from hfgrow.plan.plan import GrowthPlan, needs_torch

# What computes tensors; copies, and zeros, need neither.
COMPUTING = ("torch", "numpy")
# What training imports beyond what growth does.
TRAINING = ("torch", "transformers", "accelerate", "safetensors", "numpy", "tokenizers")


def require(what: str, *packages: str, extra: str = "train") -> None:
    """Refuse something for which a package is missing.

    Args:
        what: What needs them, as the start of the message: `--dtype`.
        packages: Names to import.
        extra: The extra of hfgrow that brings them.

    Raises:
        UsageError: One of them is not installed.
    """
    absent = missing(*packages)
    if absent:
        raise UsageError(
            f"{what} needs {' and '.join(absent)}, which {'are' if absent[1:] else 'is'} not "
            "installed",
            hint=f"{shlex.quote(sys.executable)} -m pip install 'hfgrow[{extra}]'",
        )


def require_for(plan: GrowthPlan) -> None:
    """Refuse a plan with tensors to compute where that cannot be done.

    Raises:
        UsageError: What computes them is not installed.
    """
    if any(map(needs_torch, plan.tensors.values())):
        require("computing tensors", *COMPUTING)


def missing(*packages: str) -> list[str]:
    """Return which of these packages cannot be imported."""
    return [name for name in packages if find_spec(name) is None]
