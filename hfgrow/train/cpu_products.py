"""Matrix products on CPUs by the library of torch's that is the faster one there.

torch multiplies float32 matrices by MKL, which on AMD's processors leaves AVX-512 alone and runs at
half their speed; oneDNN, which torch has too, does not ask whose processor it is. Both compute in
float32 and differ in the order of their sums. The choice depends on the processor alone, never on
a measurement, so that a run that is resumed computes as before.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module, functional

_CPUINFO = Path("/proc/cpuinfo")


@torch.library.custom_op("hfgrow::product", mutates_args=())
def _one_dnn(left: Tensor, right: Tensor) -> Tensor:
    packed: Any = torch.ops.mkldnn
    found: Tensor = packed._linear_pointwise(left, right, None, "none", [], "")
    return found


@_one_dnn.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty((*left.shape[:-1], right.shape[0]))


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return `left @ right.T` without a gradient.

    Args:
        left: [..., k].
        right: [n, k].
    """
    is_ours = left.dtype == right.dtype == torch.float32 and left.device.type == "cpu"
    if is_ours and one_dnn_is_faster():
        found: Tensor = _one_dnn(left, right)
        return found
    return functional.linear(left, right)


@cache
def one_dnn_is_faster() -> bool:
    """Say whether float32 products on this machine's CPU are left to oneDNN."""
    backends: Any = torch.backends
    if backends.cpu.get_cpu_capability() != "AVX512":
        return False
    if not (backends.mkl.is_available() and backends.mkldnn.is_available()):
        return False
    try:
        if "AuthenticAMD" not in _CPUINFO.read_text(encoding="ascii", errors="replace"):
            return False
        one = torch.ones(2, 2)
        return torch.equal(_one_dnn(one, one), one @ one)
    except (OSError, RuntimeError, AttributeError):
        # A release of torch that has the operator no more.
        return False


class _Product(torch.autograd.Function):
    """`inputs @ weight.T` by oneDNN, with the products of its gradients."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        found: Tensor = _one_dnn(inputs, weight)
        return found

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight = ctx.needs_input_grad
        rows, columns = gradient.flatten(0, -2), inputs.flatten(0, -2)
        return (
            _one_dnn(gradient, weight.t()) if of_inputs else None,
            _one_dnn(rows.t(), columns.t()) if of_weight else None,
        )


class FastLinear(Linear):
    """A linear layer whose float32 products on a CPU are those of oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what `Linear` returns."""
        is_autocast = torch.is_autocast_enabled("cpu")
        if input.device.type != "cpu" or input.dtype != torch.float32 or is_autocast:
            return super().forward(input)
        apply: Any = _Product.apply
        found: Tensor = apply(input, self.weight)
        return found if self.bias is None else found + self.bias


def use_fast_products(model: Module) -> None:
    """Let the linear layers of a model multiply by the faster library, where there is one."""
    if not one_dnn_is_faster():
        return
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = FastLinear
