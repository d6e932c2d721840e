"""The table of what was proven of every type: made by `python -m benchmarks.reach`, shipped.

Release of transformers -> type -> what came of each growth of a tiny model of it, compared with
twins in memory, and what has to be zero in a layer that adds nothing.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def proven() -> Mapping[str, Mapping[str, Any]]:
    """Return the table: release -> type -> its row."""
    text = files("hfgrow.checkpoint.derived").joinpath("proven.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def row_of(model_type: str, version: str) -> Mapping[str, Any]:
    """Return what was proven of a type with a release; empty if nothing was."""
    found: Mapping[str, Any] = proven().get(version, {}).get(model_type, {})
    return found
