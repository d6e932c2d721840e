"""The heads of the families: what lies between hidden states and logits beside the matrix."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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
    """Return the head of a transformers config of a family in `hfgrow.families`."""
    match config.model_type:
        case "granite":
            return Head(logits_divisor=config.logits_scaling)
        case "minicpm3":
            return Head(hidden_divisor=config.logits_scaling)
        case "gemma2" | "gemma3_text":
            return Head(softcap=config.final_logit_softcapping)
        case _:
            return Head()
