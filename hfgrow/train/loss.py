"""Cross-entropy of the next token from hidden states, without the logits of all tokens at once.

The logits of a batch, [tokens, vocab_size] in float32, take more memory than anything else of a
small model. Here they exist for a chunk of tokens at a time, and gradients are computed while a
chunk is there, so that nothing is computed twice.

Of a derived family nobody knows what lies between the hidden states and the logits: it computes its
own, all of a micro-batch at once.

Where config.json says `output_router_logits`, a mixture trains on `router_aux_loss_coef` times the
loss of its router besides, which is small where experts get the same share of the tokens. What is
told and recorded is the cross-entropy alone.

Sources: Hsu et al. 2024, "Liger Kernel", https://arxiv.org/abs/2410.10989, Sec. 3.2 (gradients of
head and loss, chunk by chunk, in the forward pass); Fedus et al. 2021, "Switch Transformers",
https://arxiv.org/abs/2101.03961, Eq. 4 (the loss of the router)
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, functional

from hfgrow.data.batches import NO_TARGET
from hfgrow.errors import ModelError
from hfgrow.plan.families import FAMILIES
from hfgrow.train.attention import Masks
from hfgrow.train.cpu_products import product
from hfgrow.train.derived_flops import has_experts


@dataclass(frozen=True, slots=True)
class Head:
    """What lies between the last hidden states and the logits, beside the matrix.

    Attributes:
        hidden_divisor: Divides the hidden states.
        logits_divisor: Divides the logits.
        softcap: The cap `c` of the logits, `c tanh(logit / c)`; None caps nothing.
    """

    hidden_divisor: float = 1.0
    logits_divisor: float = 1.0
    softcap: float | None = None

    @property
    def divisor(self) -> float:
        """What hidden states are divided by in all: the division of the logits is one of them."""
        return self.hidden_divisor * self.logits_divisor

    def scores(self, logits: Tensor) -> Tensor:
        """Return float32 logits, capped where the head caps them.

        Args:
            logits: The product of divided hidden states and the matrix, [tokens, vocab_size].
        """
        scores = logits.float()
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)


def head_of(config: Any) -> Head:
    """Return the head of a transformers config of a family in `hfgrow.plan.families`."""
    match config.model_type:
        case "granite" | "granite_swa":
            return Head(logits_divisor=config.logits_scaling)
        case "minicpm3":
            return Head(hidden_divisor=config.logits_scaling)
        case "gemma2" | "gemma3_text" | "vaultgemma":
            return Head(softcap=config.final_logit_softcapping)
        case _:
            return Head()


# Memory for the float32 logits of a chunk, in bytes.
_CHUNK_NBYTES = {"cuda": 1 << 30}
_CHUNK_NBYTES_ELSEWHERE = 1 << 26


def chunk_nbytes(kind: str) -> int:
    """Return the bytes of the logits of a chunk on a kind of device."""
    return _CHUNK_NBYTES.get(kind, _CHUNK_NBYTES_ELSEWHERE)


# Liger's kernels pay off where the vocabulary is large.
_LIGER_VOCAB = 1 << 16


def router_loss_coefficient(settings: Mapping[str, Any]) -> float:
    """Return what the loss of a router is multiplied with; 0 where a model has none, or none asked.

    Args:
        settings: The config of the layers, with defaults filled in.
    """
    is_asked = settings.get("output_router_logits")
    return float(settings.get("router_aux_loss_coef") or 0) if is_asked else 0.0


def router_note(settings: Mapping[str, Any]) -> str:
    """Return what is to be known of the loss of a model's router, in words; empty without one.

    Args:
        settings: The config of the layers, with defaults filled in.
    """
    coefficient = settings.get("router_aux_loss_coef")
    if not coefficient or not has_experts(settings):
        return ""
    if router_loss_coefficient(settings):
        return (
            f"{coefficient:g} times the loss of the router is trained on besides; the losses that "
            "are told are without it"
        )
    return (
        f"the loss of the router is not trained on: config.json has router_aux_loss_coef "
        f"{coefficient:g}, but not output_router_logits"
    )


class NextTokenLoss(Module):
    """A causal language model that returns its loss: what a training loop wraps and calls.

    Args:
        model: A transformers model of a family in `hfgrow.plan.families`, or of a derived one.
        is_compiled: Whether what is computed for a chunk is compiled.
    """

    def __init__(self, model: Any, *, is_compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self._head = head_of(model.config)
        self._is_written = model.config.model_type in FAMILIES
        settings = model.config.get_text_config(decoder=True).to_dict()
        self._router = router_loss_coefficient(settings)
        self._is_compiled = is_compiled

    def forward(
        self, input_ids: Tensor, targets: Tensor, attention_masks: Masks | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss in nats, float32, and how many tokens it sums over.

        Args:
            input_ids: Tokens, [batch, tokens].
            targets: The token to be predicted at each place, in the same shape: `input_ids` of the
                next place. -100 does not count.
            attention_masks: What `batch_masks` made for the batch.
        """
        asked: dict[str, Any] = {"use_cache": False}
        if attention_masks is not None:
            asked["attention_masks"] = attention_masks
        has_router = self._router > 0 and torch.is_grad_enabled()
        if has_router:
            asked["output_router_logits"] = True
        count = (targets != NO_TARGET).sum()
        if self._is_written:
            output = self.model.model(input_ids, **asked)
            total = summed_cross_entropy(
                output.last_hidden_state.flatten(0, 1),
                self.model.lm_head.weight,
                targets.flatten(),
                self._head,
                is_compiled=self._is_compiled,
            )
        else:
            output = self.model(input_ids=input_ids, **asked)
            total = functional.cross_entropy(
                output.logits.flatten(0, 1).float(),
                targets.flatten(),
                reduction="sum",
                ignore_index=NO_TARGET,
            )
        if has_router:
            added = self._router * self._router_loss(output) * count
            # Its gradient without its value.
            total = total + (added - added.detach())
        return total, count

    def _router_loss(self, output: Any) -> Tensor:
        """Return the loss of the routers of all layers, as transformers computes it."""
        if not self._is_written:
            found: Tensor | None = getattr(output, "aux_loss", None)
            if found is None:
                raise ModelError(
                    f"config.json: output_router_logits is set, but a {type(self.model).__name__} "
                    "computes no loss of its router",
                    hint="take the key out of config.json",
                )
            return found
        model = self.model
        balance = import_module(type(model).__module__).load_balancing_loss_func
        loss = balance(output.router_logits, model.num_experts, model.num_experts_per_tok)
        assert isinstance(loss, Tensor)
        return loss


def summed_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    head: Head,
    *,
    is_compiled: bool = False,
    chunk_tokens: int | None = None,
) -> Tensor:
    """Return the cross-entropy summed over tokens, in nats, float32.

    Gradients cannot be taken of its gradients. Under autocast the matrix is converted once for all
    chunks, and its gradient is summed, and returned, in its own dtype.

    Args:
        hidden: Hidden states behind the final norm, [tokens, hidden_size].
        weight: The matrix of the head, [vocab_size, hidden_size].
        targets: The token to be predicted at each place, [tokens]; -100 does not count.
        head: What lies between the two and the logits.
        is_compiled: Whether what is computed for a chunk is compiled.
        chunk_tokens: Tokens of a chunk; None chooses by the size of the vocabulary.
    """
    kind, dtype = hidden.device.type, weight.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden = hidden.to(dtype)
    if chunk_tokens is None:
        if kind == "cuda" and weight.shape[0] >= _LIGER_VOCAB and _has_liger():
            return _liger(hidden, weight.to(dtype), targets, head)
        chunk_tokens = max(1, chunk_nbytes(kind) // (4 * weight.shape[0]))
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        # Without the compiler, softmax in place moves the fewest bytes on a CPU.
        slope = _compiled_slope() if is_compiled and kind != "cpu" else _slope
        summed: Any = _Summed
        total: Tensor = summed.apply(hidden, weight, targets, head, slope, chunk_tokens, dtype)
        return total
    total = hidden.new_zeros((), dtype=torch.float32)
    weight = weight.to(dtype)
    for part in _parts(len(targets), chunk_tokens):
        scores = head.scores(product(_divided(hidden[part], head), weight))
        total += functional.cross_entropy(
            scores, targets[part], reduction="sum", ignore_index=NO_TARGET
        )
    return total


class _Summed(torch.autograd.Function):
    """The sum over chunks, with the gradients of both factors computed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        head: Head,
        slope: "_Slope",
        chunk_tokens: int,
        dtype: torch.dtype,
    ) -> Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        hidden_gradient = torch.empty_like(hidden) if of_hidden else None
        # Shards hand the matrix over in bfloat16, in which a sum of many chunks loses digits.
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if of_weight else None
        total = hidden.new_zeros((), dtype=torch.float32)
        matrix = weight.to(dtype)
        for part in _parts(len(targets), chunk_tokens):
            states = _divided(hidden[part], head)
            counts = (targets[part] != NO_TARGET)[:, None]
            loss, gradient = slope(product(states, matrix), targets[part], head)
            total += loss
            if weight_gradient is not None:
                weight_gradient += product(gradient.t(), (states * counts).t())
            if hidden_gradient is not None:
                found = product(gradient, matrix.t()) * counts
                hidden_gradient[part] = _divided(found, head)
        ctx.weight_dtype = weight.dtype
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    # torch declares one gradient, and means as many as forward returned values.
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *upstream: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        if hidden_gradient is not None:
            hidden_gradient = hidden_gradient * upstream[0]
        if weight_gradient is not None:
            weight_gradient = (weight_gradient * upstream[0]).to(ctx.weight_dtype)
        return hidden_gradient, weight_gradient, None, None, None, None, None


def _divided(hidden: Tensor, head: Head) -> Tensor:
    return hidden if head.divisor == 1 else hidden / head.divisor


_Slope = Callable[[Tensor, Tensor, Head], tuple[Tensor, Tensor]]


def _slope(logits: Tensor, targets: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Return the summed loss of a chunk, and its gradient by the logits, which are overwritten.

    The gradient of a token without a target is that of some token; it is left out later, where
    that is a factor on fewer numbers.
    """
    scores = head.scores(logits)
    counts, places = targets != NO_TARGET, targets.clamp(min=0)[:, None]
    own = scores.gather(1, places)
    # The share of the most likely token is never too small to have a logarithm.
    top, at = scores.max(-1, keepdim=True)
    in_place = scores if scores.device.type == "cpu" and head.softcap is None else None
    shares = torch.softmax(scores, -1, out=in_place)
    losses = top - torch.log(shares.gather(1, at)) - own
    shares.scatter_add_(1, places, shares.new_full((1, 1), -1.0).expand(places.shape))
    if head.softcap is not None:
        shares = shares * (1 - (scores / head.softcap) ** 2)
    return (losses[:, 0] * counts).sum(), shares.to(logits.dtype)


@cache
def _compiled_slope() -> _Slope:
    return torch.compile(_slope, dynamic=False)


def _parts(num_tokens: int, chunk_tokens: int) -> Iterator[slice]:
    """Part the tokens in as few chunks as there must be, of one size but for the last."""
    size = -(-num_tokens // max(1, -(-num_tokens // chunk_tokens)))
    for start in range(0, num_tokens, max(1, size)):
        yield slice(start, start + size)


@cache
def _has_liger() -> bool:
    return find_spec("liger_kernel") is not None


def _liger(hidden: Tensor, weight: Tensor, targets: Tensor, head: Head) -> Tensor:
    liger: Any = import_module("liger_kernel.transformers")
    loss = liger.LigerFusedLinearCrossEntropyLoss(
        ignore_index=NO_TARGET,
        reduction="sum",
        softcap=head.softcap,
        accum_dtype=torch.float32,
    )
    total: Tensor = loss(weight, _divided(hidden, head), targets)
    return total
