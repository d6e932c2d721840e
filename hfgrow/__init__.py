"""Grow Llama-style Hugging Face checkpoints: exact, as fast as the disk, with proof and lineage.

The main job from Python::

    import hfgrow

    growth = hfgrow.grow(hfgrow.GrowthRequest(model="demo", steps=[("stack", {"g": 4})]))
    hfgrow.verify(growth.out)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfgrow.checkpoint.files import LocalFolder
    from hfgrow.checkpoint.read import read
    from hfgrow.errors import GrowthError
    from hfgrow.families import FAMILIES
    from hfgrow.job import grow
    from hfgrow.lineage import Manifest
    from hfgrow.manifest import read_manifest
    from hfgrow.operators import OPERATORS
    from hfgrow.plan import GrowthPlan
    from hfgrow.proof import verify
    from hfgrow.rebuild import reproduce
    from hfgrow.request import Growth, GrowthRequest

__version__ = "0.1.0"

__all__ = [
    "FAMILIES",
    "OPERATORS",
    "Growth",
    "GrowthError",
    "GrowthPlan",
    "GrowthRequest",
    "LocalFolder",
    "Manifest",
    "__version__",
    "grow",
    "read",
    "read_manifest",
    "reproduce",
    "verify",
]

# Loaded when first asked for, so that importing hfgrow costs nothing.
_HOMES = {
    "FAMILIES": "families",
    "Growth": "request",
    "GrowthError": "errors",
    "GrowthPlan": "plan",
    "GrowthRequest": "request",
    "LocalFolder": "checkpoint.files",
    "Manifest": "lineage",
    "OPERATORS": "operators",
    "grow": "job",
    "read": "checkpoint.read",
    "read_manifest": "manifest",
    "reproduce": "rebuild",
    "verify": "proof",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfgrow' has no attribute {name!r}")
    value = getattr(import_module(f"hfgrow.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
