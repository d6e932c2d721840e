"""Causal attention for training: no mask tensor where none is needed.

Registered with transformers under a name of its own and without a mask function, so that models
build no mask: they hand `None` on, also under torch.compile, where stock models build one and lose
the fast kernels. What a layer asks for decides how it is computed, always exactly:

* plain causal layers: SDPA with `is_causal` and grouped heads;
* windows shorter than the sequence, and packed documents: SDPA with the dense mask of the batch,
  or flex attention with its block mask, as `batch_masks` made it; a window whose mask was not
  made gets a dense one in the layer;
* capped scores, as in Gemma 2, which SDPA does not know: flex attention if there is a block mask,
  else written out, [batch, heads, tokens, tokens] in memory;
* sinks, which take a share of a head's attention: written out.

A model that sees documents apart is called with `attention_masks=batch_masks(...)`: the masks of
a batch are made once, and only where a layer needs one.

Source: Dong et al. 2024, "Flex Attention", https://arxiv.org/abs/2412.05496 (block masks)
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from hfgrow.data.batches import MicroBatch
from hfgrow.errors import UsageError
from hfgrow.plan.families import FAMILIES
from hfgrow.train.flops import layer_windows

# Sliding window of a layer, None for none -> its mask, or None where it needs none.
Masks = Mapping[int | None, Tensor | BlockMask | None]


def batch_masks(
    windows: Collection[int | None],
    num_tokens: int,
    device: torch.device,
    *,
    segment_ids: Tensor | None = None,
    is_capped: bool = False,
    has_sinks: bool = False,
) -> Masks | None:
    """Return the masks of a batch, for the model's argument `attention_masks`.

    Args:
        windows: The sliding windows of the model's layers; None for layers without.
        num_tokens: Tokens of a sequence.
        device: Where the model runs: on CUDA masks are block masks, elsewhere dense ones.
        segment_ids: For each token the number of its document, [batch, num_tokens]; a token sees
            its own document only. None packs without masks.
        is_capped: Whether the model caps its attention logits, which CUDA needs a block mask for.
        has_sinks: Whether its heads have sinks, which take dense masks on CUDA too.

    Returns:
        None where no layer needs a mask.
    """
    on_cuda = device.type == "cuda" and not has_sinks
    make = block_mask if on_cuda else dense_mask
    masks: dict[int | None, Tensor | BlockMask | None] = {}
    for window in windows:
        is_short = window is not None and window < num_tokens
        needed = segment_ids is not None or is_short or (is_capped and on_cuda)
        masks[window] = make(num_tokens, window, device, segment_ids) if needed else None
    return masks if any(mask is not None for mask in masks.values()) else None


def dense_mask(
    num_tokens: int,
    window: int | None,
    device: torch.device,
    segment_ids: Tensor | None = None,
) -> Tensor:
    """Return True where a query sees a key, [batch or 1, 1, num_tokens, num_tokens]."""
    place = torch.arange(num_tokens, device=device)
    back = place[:, None] - place[None, :]
    sees = back >= 0 if window is None else (back >= 0) & (back < window)
    if segment_ids is None:
        return sees[None, None]
    return (sees & (segment_ids[:, :, None] == segment_ids[:, None, :]))[:, None]


def block_mask(
    num_tokens: int,
    window: int | None,
    device: torch.device,
    segment_ids: Tensor | None = None,
) -> BlockMask:
    """Return the same for flex attention, which passes over blocks where no query sees a key."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = query >= key
        if window is not None:
            seen = seen & (query - key < window)
        if segment_ids is not None:
            seen = seen & (segment_ids[batch, query] == segment_ids[batch, key])
        return seen

    batch = None if segment_ids is None else segment_ids.shape[0]
    return create_block_mask(sees, batch, None, num_tokens, num_tokens, device=str(device))


NAME = "hfgrow_causal"
# Where cuDNN was seen faster than flash attention; elsewhere it is slower.
_CUDNN_CAPABILITY = (9, 0)


def use_causal_attention(model: Any) -> None:
    """Let a transformers model compute its attention here; one of a derived family keeps its own.

    Raises:
        UsageError: Its attention cannot be replaced.
    """
    if model.config.model_type not in FAMILIES:
        return
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, causal_attention)
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise UsageError(f"the attention of {type(model).__name__} cannot be replaced")


def preferred_kernels(device: torch.device) -> AbstractContextManager[object]:
    """Prefer cuDNN's attention on Hopper, all others behind it; elsewhere keep torch's order.

    To be entered around training. Kernels that cannot take a shape are passed over.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != _CUDNN_CAPABILITY:
        return nullcontext()
    order = [
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ]
    return sdpa_kernel(order, set_priority=True)


def causal_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    attention_masks: Masks | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of a layer, as transformers calls it.

    Args:
        module: The layer's attention.
        query: Queries, [batch, heads, tokens, qk_dim].
        key: Keys, [batch, kv_heads, tokens, qk_dim].
        value: Values, [batch, kv_heads, tokens, head_dim].
        attention_mask: Must be None: masks come in `attention_masks`.
        scaling: The factor on the scores; None means `1 / sqrt(qk_dim)`.
        dropout: The share of weights dropped.
        sliding_window: How many tokens a token sees, itself included; None is all before it.
        softcap: The cap `c` of the scores: `c tanh(score / c)`.
        s_aux: The sinks, [heads]: `e^sink` is added to the sum that the weights are parts of.
        attention_masks: The masks of the batch.

    Returns:
        The outputs, [batch, tokens, heads, head_dim], and no weights.

    Raises:
        UsageError: There is a mask or a cache, or dropout together with block masks.
    """
    num_tokens = query.shape[2]
    if attention_mask is not None or key.shape[2] != num_tokens:
        raise UsageError(f"{NAME} takes whole sequences, without attention_mask and without cache")
    if sliding_window is None:
        # Qwen2-MoE keeps a layer's window to itself, since a mask of transformers' would have it.
        sliding_window = getattr(module, "sliding_window", None)
    mask = None
    if attention_masks is not None:
        mask = attention_masks[sliding_window]
    elif sliding_window is not None and sliding_window < num_tokens:
        mask = dense_mask(num_tokens, sliding_window, query.device)
    if s_aux is not None:
        assert not isinstance(mask, BlockMask)
        output = _written_out(query, key, value, mask, scaling, softcap, dropout, s_aux)
    elif isinstance(mask, BlockMask):
        if dropout:
            raise UsageError("attention_dropout must be 0 for windows, caps and documents on CUDA")
        output = _flex(query, key, value, mask, scaling, softcap)
    elif softcap is not None:
        output = _written_out(query, key, value, mask, scaling, softcap, dropout, None)
    else:
        output = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
    return output.transpose(1, 2).contiguous(), None


def _flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    def capped(score: Tensor, *_: Tensor) -> Tensor:
        assert softcap is not None
        return softcap * torch.tanh(score / softcap)

    attend: Any = _compiled_flex() if query.is_cuda else flex_attention
    output: Tensor = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=mask,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return output


@cache
def _compiled_flex() -> Callable[..., Any]:
    """Compile flex attention, which would write all scores out otherwise."""
    return torch.compile(flex_attention, dynamic=False)


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    dropout: float,
    sinks: Tensor | None,
) -> Tensor:
    batch, num_heads, num_tokens, qk_dim = query.shape
    num_kv_heads = key.shape[1]
    if mask is None:
        mask = dense_mask(num_tokens, None, query.device)
    grouped = query.view(batch, num_kv_heads, num_heads // num_kv_heads, num_tokens, qk_dim)
    scores = grouped @ key[:, :, None].transpose(-1, -2)
    scores = scores * (qk_dim**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~mask[:, :, None], float("-inf"))
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = functional.dropout(weights, dropout)
    output: Tensor = (weights @ value[:, :, None]).flatten(1, 2)
    if sinks is not None:
        total = torch.logsumexp(scores.flatten(1, 2), dim=-1)
        output = output * (total - sinks[:, None]).float().sigmoid()[..., None].to(output.dtype)
    return output


_WITH_SINKS = ("granite_swa",)


class BatchMasks:
    """Makes the masks of batch after batch; none for a derived family, which makes its own.

    Args:
        config: The model's transformers config.
        sequence_length: Tokens of a sequence.
        device: Where the model runs.
    """

    def __init__(self, config: Any, sequence_length: int, device: torch.device) -> None:
        settings = config.to_dict()
        is_ours = settings["model_type"] in FAMILIES
        self._windows = frozenset(layer_windows(settings)) if is_ours else frozenset()
        self._is_capped = settings.get("attn_logit_softcapping") is not None
        self._has_sinks = settings["model_type"] in _WITH_SINKS
        self._sequence_length, self._device = sequence_length, device
        self._without_documents = self._make(None)

    def of(self, batch: MicroBatch) -> Masks | None:
        """Return the masks of a batch on the device; None where no layer needs any."""
        if batch.segment_ids is None:
            return self._without_documents
        return self._make(batch.segment_ids)

    def _make(self, segment_ids: torch.Tensor | None) -> Masks | None:
        return batch_masks(
            self._windows,
            self._sequence_length,
            self._device,
            segment_ids=segment_ids,
            is_capped=self._is_capped,
            has_sinks=self._has_sinks,
        )
