"""Grow Llama-style Hugging Face checkpoints: exact, as fast as the disk, with proof and lineage.

The main job from Python::

    import hfgrow

    growth = hfgrow.grow(hfgrow.GrowthRequest(model="demo", steps=[("stack", {"g": 4})]))
    hfgrow.verify(growth.out)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfgrow.checkpoint.compute.moments import grow_optimizer_state
    from hfgrow.checkpoint.files import LocalFolder
    from hfgrow.checkpoint.read import read
    from hfgrow.errors import GrowthError
    from hfgrow.growth.grow import Growth, GrowthRequest, grow
    from hfgrow.growth.mask import GrowthMask, attach_mask
    from hfgrow.growth.memory import grow_state_dict, plan_state_dict
    from hfgrow.growth.reproduce import reproduce
    from hfgrow.growth.verify import verify
    from hfgrow.lineage.manifest import Manifest
    from hfgrow.lineage.reading import read_manifest
    from hfgrow.plan.families import FAMILIES
    from hfgrow.plan.operators import OPERATORS
    from hfgrow.plan.plan import GrowthPlan

__version__ = "0.1.0"

__all__ = [
    "FAMILIES",
    "OPERATORS",
    "Growth",
    "GrowthError",
    "GrowthMask",
    "GrowthPlan",
    "GrowthRequest",
    "LocalFolder",
    "Manifest",
    "__version__",
    "attach_mask",
    "grow",
    "grow_optimizer_state",
    "grow_state_dict",
    "plan_state_dict",
    "read",
    "read_manifest",
    "reproduce",
    "verify",
]

# Loaded when first asked for, so that importing hfgrow costs nothing.
_HOMES = {
    "FAMILIES": "plan.families",
    "Growth": "growth.grow",
    "GrowthError": "errors",
    "GrowthMask": "growth.mask",
    "GrowthPlan": "plan.plan",
    "GrowthRequest": "growth.grow",
    "LocalFolder": "checkpoint.files",
    "Manifest": "lineage.manifest",
    "OPERATORS": "plan.operators",
    "attach_mask": "growth.mask",
    "grow": "growth.grow",
    "grow_optimizer_state": "checkpoint.compute.moments",
    "grow_state_dict": "growth.memory",
    "plan_state_dict": "growth.memory",
    "read": "checkpoint.read",
    "read_manifest": "lineage.reading",
    "reproduce": "growth.reproduce",
    "verify": "growth.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfgrow' has no attribute {name!r}")
    value = getattr(import_module(f"hfgrow.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
