"""Attention masks of a batch, made once and only where a layer needs one.

Source: Dong et al. 2024, "Flex Attention", https://arxiv.org/abs/2412.05496 (block masks)
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

# Sliding window of a layer, None for none -> its mask, or None where it needs none.
Masks = Mapping[int | None, Tensor | BlockMask | None]


def batch_masks(
    windows: Collection[int | None],
    num_tokens: int,
    device: torch.device,
    *,
    segment_ids: Tensor | None = None,
    is_capped: bool = False,
) -> Masks | None:
    """Return the masks of a batch, for the model's argument `attention_masks`.

    Args:
        windows: The sliding windows of the model's layers; None for layers without.
        num_tokens: Tokens of a sequence.
        device: Where the model runs: on CUDA masks are block masks, elsewhere dense ones.
        segment_ids: For each token the number of its document, [batch, num_tokens]; a token sees
            its own document only. None packs without masks.
        is_capped: Whether the model caps its attention logits, which CUDA needs a block mask for.

    Returns:
        None where no layer needs a mask.
    """
    on_cuda = device.type == "cuda"
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
