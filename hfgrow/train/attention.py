"""Causal attention for training: no mask tensor where none is needed.

Registered with transformers under a name of its own and without a mask function, so that models
build no mask: they hand `None` on, also under torch.compile, where stock models build one and lose
the fast kernels. What a layer asks for decides how it is computed, always exactly:

* plain causal layers: SDPA with `is_causal` and grouped heads;
* windows shorter than the sequence, and packed documents: SDPA with the dense mask of the batch,
  or flex attention with its block mask, as `masks.batch_masks` made it; a window whose mask was not
  made gets a dense one in the layer;
* capped scores, as in Gemma 2, which SDPA does not know: flex attention if there is a block mask,
  else written out, [batch, heads, tokens, tokens] in memory.

A model that sees documents apart is called with `attention_masks=batch_masks(...)`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from hfgrow.errors import UsageError
from hfgrow.train.masks import Masks, dense_mask

NAME = "hfgrow_causal"
# Where cuDNN was seen faster than flash attention; elsewhere it is slower.
_CUDNN_CAPABILITY = (9, 0)


def use_causal_attention(model: Any) -> None:
    """Let a transformers model compute its attention here.

    Raises:
        UsageError: Its attention cannot be replaced.
    """
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
        attention_masks: The masks of the batch.

    Returns:
        The outputs, [batch, tokens, heads, head_dim], and no weights.

    Raises:
        UsageError: There is a mask or a cache, or dropout together with block masks.
    """
    num_tokens = query.shape[2]
    if attention_mask is not None or key.shape[2] != num_tokens:
        raise UsageError(f"{NAME} takes whole sequences, without attention_mask and without cache")
    mask = None
    if attention_masks is not None:
        mask = attention_masks[sliding_window]
    elif sliding_window is not None and sliding_window < num_tokens:
        mask = dense_mask(num_tokens, sliding_window, query.device)
    if isinstance(mask, BlockMask):
        if dropout:
            raise UsageError("attention_dropout must be 0 for windows, caps and documents on CUDA")
        output = _flex(query, key, value, mask, scaling, softcap)
    elif softcap is not None:
        output = _capped(query, key, value, mask, scaling, softcap, dropout)
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


def _capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float,
    dropout: float,
) -> Tensor:
    batch, num_heads, num_tokens, qk_dim = query.shape
    num_kv_heads = key.shape[1]
    if mask is None:
        mask = dense_mask(num_tokens, None, query.device)
    grouped = query.view(batch, num_kv_heads, num_heads // num_kv_heads, num_tokens, qk_dim)
    scores = grouped @ key[:, :, None].transpose(-1, -2)
    scores = scores * (qk_dim**-0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~mask[:, :, None], float("-inf"))
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = functional.dropout(weights, dropout)
    output: Tensor = weights @ value[:, :, None]
    return output.flatten(1, 2)
