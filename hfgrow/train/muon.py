"""Muon for the matrices of the layers and AdamW for everything else, as one optimizer.

Muon makes the momentum of a matrix as good as orthogonal before it is a step. Embeddings, head and
vectors have no use for that and go by AdamW.

Sources: Jordan et al. 2024, "Muon", https://kellerjordan.github.io/posts/muon; Liu et al. 2025,
"Muon is Scalable for LLM Training", https://arxiv.org/abs/2502.16982, Sec. 2.2 (updates as large
as AdamW's)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hfgrow.errors import UsageError


class MuonAdamW(torch.optim.Optimizer):
    """torch.optim.Muon and torch.optim.AdamW over one list of groups and one state.

    Args:
        muon_groups: Parameter groups of matrices, `[rows, columns]` each; may be empty.
        adamw_groups: Parameter groups of everything else; may be empty.
        muon_options: Arguments of torch.optim.Muon.
        adamw_options: Arguments of torch.optim.AdamW.

    Raises:
        UsageError: This torch has no Muon.
    """

    def __init__(
        self,
        muon_groups: Sequence[dict[str, Any]],
        adamw_groups: Sequence[dict[str, Any]],
        *,
        muon_options: dict[str, Any],
        adamw_options: dict[str, Any],
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise UsageError(
                f"muon needs torch 2.9 or later, not {torch.__version__}",
                hint="optimizer: {name: adamw}",
            )
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if muon_groups:
            self._parts["muon"] = torch.optim.Muon(muon_groups, **muon_options)
        if adamw_groups:
            self._parts["adamw"] = torch.optim.AdamW(adamw_groups, **adamw_options)
        groups = []
        for rule, part in self._parts.items():
            for group in part.param_groups:
                group["rule"] = rule
                groups.append(group)
        super().__init__(groups, {})

    # torch overloads it by whether there is a closure.
    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Take a step with each rule on its groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for rule, part in self._parts.items():
            # Loading a state replaces groups and state, so the parts are handed them anew.
            part.param_groups = [group for group in self.param_groups if group["rule"] == rule]
            part.state = self.state
            part.step()
        return loss
