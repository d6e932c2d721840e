"""The attention masks of a model's batches; those that never change are made once."""

from typing import Any

import torch

from hfgrow.train.data.loader import MicroBatch
from hfgrow.train.masks import Masks, batch_masks
from hfgrow.train.windows import layer_windows


class BatchMasks:
    """Makes the masks of batch after batch.

    Args:
        config: The model's transformers config.
        sequence_length: Tokens of a sequence.
        device: Where the model runs.
    """

    def __init__(self, config: Any, sequence_length: int, device: torch.device) -> None:
        settings = config.to_dict()
        self._windows = frozenset(layer_windows(settings))
        self._is_capped = settings.get("attn_logit_softcapping") is not None
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
        )
