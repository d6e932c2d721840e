"""Schedule-Free AdamW: an average of the iterates takes the place of a falling learning rate.

Three points on one line: `z` takes the steps of Adam, `x` is the weighted mean of all `z`, and
gradients are taken at `y = (1 - beta1) z + beta1 x`. The parameters hold `y` while training and `x`
between `eval()` and `train()`; the state holds `z` and the second moment, as much as AdamW's.

A step number t, from 1, with the gradient g at y:

    v = beta2 v + (1 - beta2) g^2          vhat = v / (1 - beta2^t)
    d = g / (sqrt(vhat) + eps) + weight_decay y
    z' = z - lr d                          x' = (1 - c) x + c z'
    c = w_t / (w_1 + ... + w_t)            w_t = t^r max(lr_1 ... lr_t)^weight_lr_power

`x` is never stored: in terms of y and z, `y' = (1 - c) y + c z - lr (1 - beta1 (1 - c)) d`.

The learning rate is that of the parameter group at each step, so that warmup is whoever sets it.
A step never changes gradients.

Source: Defazio et al. 2024, "The Road Less Scheduled", https://arxiv.org/abs/2405.15682, Alg. 1
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from hfgrow.errors import UsageError

# One call for many tensors; torch's stubs do not list these.
_foreach: Any = torch


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """Schedule-Free AdamW over float32 parameters.

    What a checkpoint needs is all in `state_dict()`; saved while training it resumes bit for bit.
    Saved between `eval()` and `train()` it resumes to the rounding of one way from x to y.

    Args:
        params: Parameters, or parameter groups.
        lr: The learning rate.
        betas: Decay rates: of the way from z to x, above 0, and of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Relative to the learning rate, taken at y.
        r: Power of the step number in the weight of an iterate.
        weight_lr_power: Power of the largest learning rate so far in that weight.

    Raises:
        UsageError: beta1 is 0, or a parameter is not float32: the mean would drown in rounding.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "k": 0,
            "weight_sum": 0.0,
            "lr_max": 0.0,
            "train_mode": True,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; see the class for what is refused."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if not 0 < group["betas"][0] < 1:
            raise UsageError(
                f"beta1 of schedule_free_adamw must lie between 0 and 1, not {group['betas'][0]:g}"
            )
        for parameter in group["params"]:
            if parameter.dtype != torch.float32:
                raise UsageError(
                    "schedule_free_adamw needs float32 parameters, not "
                    f"{str(parameter.dtype).removeprefix('torch.')}",
                    hint="compute in bfloat16 by precision: bf16, over float32 parameters",
                )

    def eval(self) -> None:
        """Put the mean x into the parameters: for validation and export."""
        self._move(to_train=False)

    def train(self) -> None:
        """Put y back into the parameters: for steps, and for checkpoints."""
        self._move(to_train=True)

    # torch overloads it by whether there is a closure.
    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Take a step with the gradients at y.

        Raises:
            RuntimeError: The parameters hold the mean x; call `train()` before the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("the parameters hold the mean: call train() before step()")
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        lr = float(group["lr"])
        group["k"] += 1
        group["lr_max"] = max(lr, group["lr_max"])
        weight = group["k"] ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
        group["weight_sum"] += weight
        share = weight / group["weight_sum"] if group["weight_sum"] else 0.0

        y = [p for p in group["params"] if p.grad is not None]
        if not y:
            return
        gradients = [p.grad for p in y]
        z, v = [], []
        for p in y:
            state = self.state[p]
            if "z" not in state:
                state["z"] = p.detach().clone(memory_format=torch.preserve_format)
            if "exp_avg_sq" not in state:
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            z.append(state["z"])
            v.append(state["exp_avg_sq"])

        _foreach._foreach_mul_(v, beta2)
        _foreach._foreach_addcmul_(v, gradients, gradients, value=1 - beta2)
        roots = _foreach._foreach_div(v, 1 - beta2 ** group["k"])
        _foreach._foreach_sqrt_(roots)
        _foreach._foreach_add_(roots, group["eps"])
        directions = _foreach._foreach_div(gradients, roots)
        if group["weight_decay"]:
            _foreach._foreach_add_(directions, y, alpha=group["weight_decay"])
        _foreach._foreach_lerp_(y, z, share)
        _foreach._foreach_add_(y, directions, alpha=-lr * (1 - beta1 * (1 - share)))
        _foreach._foreach_add_(z, directions, alpha=-lr)

    @torch.no_grad()
    def _move(self, *, to_train: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] == to_train:
                continue
            beta1 = group["betas"][0]
            # Looked up without `self.state[p]`, which would leave an empty entry: distributed
            # checkpoints take that for a state that is there, and load nothing into it.
            moved = [p for p in group["params"] if p in self.state and "z" in self.state[p]]
            if moved:
                z = [self.state[p]["z"] for p in moved]
                _foreach._foreach_lerp_(moved, z, 1 - beta1 if to_train else 1 - 1 / beta1)
            group["train_mode"] = to_train
