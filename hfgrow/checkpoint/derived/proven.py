"""The table of what was proven of every type: made by `python -m benchmarks.reach`, shipped.

Release of transformers -> type -> what came of each growth of a tiny model of it, compared with
twins in memory, and what has to be zero in a layer that adds nothing. A row that is that of an
earlier release stands there once: later ones name the release.
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
    return {
        release: {
            model_type: found[row][model_type] if isinstance(row, str) else row
            for model_type, row in rows.items()
        }
        for release, rows in found.items()
    }


def row_of(model_type: str, version: str) -> Mapping[str, Any]:
    """Return what was proven of a type with a release; empty if nothing was."""
    found: Mapping[str, Any] = proven().get(version, {}).get(model_type, {})
    return found
