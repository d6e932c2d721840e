"""The loss of held-out text: nats a token, and bits a byte, which compare across tokenizers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import torch

from hfgrow.train.data.evaluation import evaluation_batches, num_evaluation_blocks
from hfgrow.train.data.views import TokenView
from hfgrow.train.devices import Devices, inner_model
from hfgrow.train.loss import NextTokenLoss
from hfgrow.train.masking import BatchMasks
from hfgrow.train.recipe import Recipe
from hfgrow.train.stage import load_model


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """What one held-out text cost.

    Attributes:
        label: The text's name.
        num_tokens: How many tokens were predicted.
        loss: Nats a token.
        bits_per_byte: Bits a byte of UTF-8.
    """

    label: str
    num_tokens: int
    loss: float
    bits_per_byte: float


def evaluate(
    module: Any,
    views: Sequence[TokenView],
    devices: Devices,
    masks: BatchMasks,
    *,
    sequence_length: int,
    micro_batch_size: int,
    max_tokens: int,
    document_mask: bool,
) -> tuple[HeldOutLoss, ...]:
    """Measure held-out text, every source on its own.

    Args:
        module: The loss module, wrapped or not; it must hold what is to be measured.
        views: The texts.
        devices: The processes; each takes a part.
        masks: Makes the masks of a batch.
        sequence_length: Tokens of a sequence.
        micro_batch_size: Sequences at once.
        max_tokens: The most tokens of each text.
        document_mask: Whether documents do not see each other.
    """
    module.eval()
    found = []
    with torch.no_grad(), devices.autocast():
        for view in views:
            total = torch.zeros(2, dtype=torch.float64, device=devices.device)
            for batch in evaluation_batches(
                view,
                sequence_length=sequence_length,
                micro_batch_size=micro_batch_size,
                rank=devices.rank,
                world_size=devices.num_processes,
                max_tokens=max_tokens,
                document_mask=document_mask,
            ):
                moved = batch.to(devices.device)
                loss, count = module(moved.input_ids, moved.targets, masks.of(moved))
                total += torch.stack((loss.double(), count.double()))
            loss_sum, count_sum = devices.sum(total).tolist()
            blocks = num_evaluation_blocks(view, sequence_length, max_tokens)
            read = view.between(0, min(view.num_tokens, blocks * sequence_length + 1))
            nbytes = read.num_bytes * (read.num_tokens - 1) / read.num_tokens
            # Tokens that no document mask lets be predicted have no loss; their bytes do not count.
            nbytes *= count_sum / max(1, read.num_tokens - 1)
            found.append(
                HeldOutLoss(
                    view.label,
                    int(count_sum),
                    loss_sum / max(1, count_sum),
                    loss_sum / log(2) / max(1.0, nbytes),
                )
            )
    devices.settle(module)
    module.train()
    return tuple(found)


def evaluate_folder(
    folder: Path, views: Sequence[TokenView], devices: Devices, recipe: Recipe
) -> tuple[HeldOutLoss, ...]:
    """Measure held-out text with the model of a folder, as a run of the recipe does.

    Raises:
        ModelError: transformers cannot load the model.
    """
    module: Any = devices.distribute(NextTokenLoss(load_model(folder)))
    length = recipe.data.sequence_length
    return evaluate(
        module,
        views,
        devices,
        BatchMasks(inner_model(module).config, length, devices.device),
        sequence_length=length,
        micro_batch_size=recipe.micro_batch_size,
        max_tokens=recipe.evaluation.tokens,
        document_mask=recipe.data.document_mask,
    )
