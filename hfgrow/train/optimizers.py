"""The optimizer of a recipe over parameter groups, and its learning rates."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hfgrow.train.groups import ParameterGroup
from hfgrow.train.muon import MuonAdamW
from hfgrow.train.recipe_parts import AdamW, Muon, ScheduleFreeAdamW
from hfgrow.train.schedule_free import ScheduleFreeAdamW as ScheduleFree

# Where torch has one kernel for a whole step of AdamW.
_FUSED = ("cuda", "cpu")


def make_optimizer(
    settings: AdamW | ScheduleFreeAdamW | Muon, groups: Sequence[ParameterGroup]
) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe, at the peak learning rate of each group.

    Args:
        settings: What the recipe says.
        groups: What it optimises. Each becomes one `param_group`, with its peak under `peak`.

    Raises:
        UsageError: This optimizer cannot have these parameters, or not with this torch.
    """
    betas, eps = settings.betas, settings.eps
    own = [_options(group, settings.weight_decay) for group in groups]
    match settings:
        case ScheduleFreeAdamW():
            return ScheduleFree(
                own,
                betas=betas,
                eps=eps,
                r=settings.r,
                weight_lr_power=settings.weight_lr_power,
            )
        case Muon():
            return MuonAdamW(
                [options for options, group in zip(own, groups, strict=True) if group.is_inside],
                [
                    options
                    for options, group in zip(own, groups, strict=True)
                    if not group.is_inside
                ],
                muon_options={
                    "momentum": settings.momentum,
                    "nesterov": settings.nesterov,
                    "ns_steps": settings.ns_steps,
                    "adjust_lr_fn": settings.adjust_lr,
                },
                adamw_options={"betas": betas, "eps": eps, "fused": _is_fused(groups)},
            )
        case AdamW():
            return torch.optim.AdamW(own, betas=betas, eps=eps, fused=_is_fused(groups))


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to a factor of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Hold in the parameters what is to be measured or exported.

    With Schedule-Free AdamW that is the mean of the iterates; with others it is what they hold.
    """
    if not isinstance(optimizer, ScheduleFree):
        yield
        return
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()


def _options(group: ParameterGroup, weight_decay: float) -> dict[str, Any]:
    return {
        "params": list(group.parameters),
        "lr": group.learning_rate,
        "peak": group.learning_rate,
        "weight_decay": weight_decay if group.decays else 0.0,
    }


def _is_fused(groups: Sequence[ParameterGroup]) -> bool:
    return all(p.device.type in _FUSED for group in groups for p in group.parameters)
