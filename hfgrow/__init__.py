"""Grow Llama-style Hugging Face checkpoints: exact, as fast as the disk, with proof and lineage.

The main job from Python::

    import hfgrow

    growth = hfgrow.grow(hfgrow.GrowthRequest(model="demo", steps=[("stack", {"g": 4})]))
    hfgrow.verify(growth.out)

What the other commands do: `inspect`, `pull`, `push`, `train`, `evaluate`, `budget`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfgrow.calls import budget, evaluate, inspect, pull, push
    from hfgrow.checkpoint.compute.moments import grow_optimizer_state
    from hfgrow.checkpoint.files import LocalFolder
    from hfgrow.checkpoint.read import read
    from hfgrow.console import Bars
    from hfgrow.errors import GrowthError
    from hfgrow.growth.grow import grow
    from hfgrow.growth.mask import GrowthMask, attach_mask
    from hfgrow.growth.memory import grow_model, grow_state_dict, plan_state_dict
    from hfgrow.growth.reproduce import reproduce
    from hfgrow.growth.request import Growth, GrowthRequest
    from hfgrow.growth.ungrow import ungrow
    from hfgrow.growth.verify import verify
    from hfgrow.lineage.manifest import Manifest
    from hfgrow.lineage.reading import read_manifest
    from hfgrow.plan.families import FAMILIES
    from hfgrow.plan.operators import OPERATORS
    from hfgrow.plan.plan import GrowthPlan
    from hfgrow.train.trained import Trained, train

__version__ = "0.1.0"

__all__ = [
    "FAMILIES",
    "OPERATORS",
    "Bars",
    "Growth",
    "GrowthError",
    "GrowthMask",
    "GrowthPlan",
    "GrowthRequest",
    "LocalFolder",
    "Manifest",
    "Trained",
    "__version__",
    "attach_mask",
    "budget",
    "evaluate",
    "grow",
    "grow_model",
    "grow_optimizer_state",
    "grow_state_dict",
    "inspect",
    "plan_state_dict",
    "pull",
    "push",
    "read",
    "read_manifest",
    "reproduce",
    "train",
    "ungrow",
    "verify",
]

# Loaded when first asked for, so that importing hfgrow costs nothing.
_HOMES = {
    "Bars": "console",
    "FAMILIES": "plan.families",
    "Growth": "growth.request",
    "GrowthError": "errors",
    "GrowthMask": "growth.mask",
    "GrowthPlan": "plan.plan",
    "GrowthRequest": "growth.request",
    "LocalFolder": "checkpoint.files",
    "Manifest": "lineage.manifest",
    "OPERATORS": "plan.operators",
    "Trained": "train.trained",
    "attach_mask": "growth.mask",
    "budget": "calls",
    "evaluate": "calls",
    "grow": "growth.grow",
    "grow_model": "growth.memory",
    "grow_optimizer_state": "checkpoint.compute.moments",
    "grow_state_dict": "growth.memory",
    "inspect": "calls",
    "plan_state_dict": "growth.memory",
    "pull": "calls",
    "push": "calls",
    "read": "checkpoint.read",
    "read_manifest": "lineage.reading",
    "reproduce": "growth.reproduce",
    "ungrow": "growth.ungrow",
    "verify": "growth.verify",
}


def __getattr__(name: str) -> Any:
    if name == "train":
        # The room of that name, which can be called.
        return import_module("hfgrow.train")
    if name not in _HOMES:
        raise AttributeError(f"module 'hfgrow' has no attribute {name!r}")
    value = getattr(import_module(f"hfgrow.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what there is to use, for a shell that completes."""
    return sorted(__all__)
