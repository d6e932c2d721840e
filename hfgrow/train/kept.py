"""Tensors that grew in part: their old entries stay, or their new ones warm up, inside a step.

What trains is chosen by tensor, and the rows or columns that a growth in width added stand in
tensors that have old ones too. So the gradient of old entries is zeroed before it is clipped, and
after the step they are put back where they were: weight decay does not move them by a bit. Momentum
that growth carried over for them is zeroed: Muon orthogonalises whole matrices, and theirs would
take the most of a step that the new entries are to have. New entries that warm up take a share of
their step.

Sources: Adila et al. 2026, "Grow, Don't Overwrite", https://arxiv.org/abs/2603.08647 (train the
new neurons alone); "SPARKLING", https://arxiv.org/abs/2602.02472 (re-warm new channels alone)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hfgrow.plan.undo import Kept
from hfgrow.train.checkpoints import like
from hfgrow.train.parameter_names import EXPERT

# First moments of Muon and of AdamW.
_MOMENTUM = frozenset(("momentum_buffer", "exp_avg"))


class PartlyNew:
    """The tensors of a model that are old in part.

    Args:
        parameters: Those that train, by name.
        kept: For each of them, which entries are old; parameters may be sharded.
        is_frozen: Whether old entries stay where they are.
    """

    def __init__(
        self, parameters: Mapping[str, Any], kept: Mapping[str, Kept], *, is_frozen: bool
    ) -> None:
        self._parts = [(p, like(_mask(kept[name], p.shape), p)) for name, p in parameters.items()]
        self._held = [p.detach().clone() for p in parameters.values()] if is_frozen else []

    def mask_gradients(self) -> None:
        """Zero the gradients of old entries, if they stay."""
        if self._held:
            for parameter, is_old in self._parts:
                if parameter.grad is not None:
                    parameter.grad.masked_fill_(is_old, 0.0)

    def drop_momentum(self, optimizer: torch.optim.Optimizer) -> None:
        """Zero the momentum of old entries, if they stay; without gradients it stays zero."""
        if self._held:
            for parameter, is_old in self._parts:
                for key in _MOMENTUM & optimizer.state[parameter].keys():
                    optimizer.state[parameter][key].masked_fill_(is_old, 0.0)

    @contextmanager
    def stepping(self, share: float) -> Iterator[None]:
        """Let the optimizer take its step inside the block.

        Args:
            share: The share of it that new entries take, from 0 to 1, where old ones train too.
        """
        before = [] if self._held or share == 1 else [p.detach().clone() for p, _ in self._parts]
        yield
        with torch.no_grad():
            for (parameter, is_old), held in zip(self._parts, self._held, strict=False):
                parameter.copy_(torch.where(is_old, held, parameter))
            for (parameter, is_old), start in zip(self._parts, before, strict=False):
                warmed = start + share * (parameter - start)
                parameter.copy_(torch.where(is_old, parameter, warmed))


def kept_of(stored: Sequence[str], kept: Mapping[str, Kept]) -> Kept:
    """Return which entries of a parameter are old; of the experts of a layer whole ones are.

    Args:
        stored: What the parameter is called in files.
        kept: Which entries of those are old.
    """
    if len(stored) == 1:
        return kept[stored[0]]
    experts: dict[int, bool] = {}
    for name in stored:
        number = EXPERT.search(name)
        assert number is not None, name
        expert = int(number[0])
        experts[expert] = experts.get(expert, True) and kept[name].is_all
    return Kept(tuple(is_old for _, is_old in sorted(experts.items())))


def _mask(kept: Kept, shape: torch.Size) -> torch.Tensor:
    rows = torch.tensor(kept.rows)
    if kept.cols is not None:
        return rows[:, None] & torch.tensor(kept.cols)
    return rows.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
