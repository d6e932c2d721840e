"""Validation text that stands in the training text: found by hashes, without reading either."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfgrow.train.data.sketch import WINDOW_TOKENS
from hfgrow.train.data.views import TokenView

# Two texts may quote the same sentence now and then.
_HARMLESS_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What one validation source and one training source have in common.

    Attributes:
        validation: The validation source.
        train: The training source.
        num_documents: Documents of the validation source.
        num_shared: Those of them that the training source has too, to the letter.
        share: The part of the passages of 32 tokens that the training source has too, 0 to 1; None
            where both are parts of one source, whose passages are known only as a whole.
    """

    validation: str
    train: str
    num_documents: int
    num_shared: int
    share: float | None

    @property
    def warning(self) -> str:
        """One line for the user."""
        passages = ""
        if self.share is not None:
            passages = f", and {self.share:.0%} of its passages of {WINDOW_TOKENS} tokens,"
        return (
            f"{self.num_shared} of {self.num_documents} validation documents of {self.validation}"
            f"{passages} stand in the training text {self.train} too: the validation loss is too "
            "low by that"
        )


def overlaps(validation: Sequence[TokenView], train: Sequence[TokenView]) -> list[Overlap]:
    """Return the pairs of texts that have more in common than a quotation.

    Documents are compared within the views, passages over whole sources; views of the same source
    are therefore compared by documents alone.
    """
    found = []
    for held in validation:
        hashes = held.document_hashes()
        for trained in train:
            num_shared = int(np.isin(hashes, trained.document_hashes()).sum())
            share = _share(held, trained)
            if num_shared or (share or 0.0) > _HARMLESS_SHARE:
                found.append(
                    Overlap(
                        validation=held.label,
                        train=trained.label,
                        num_documents=len(hashes),
                        num_shared=num_shared,
                        share=share,
                    )
                )
    return found


def _share(held: TokenView, trained: TokenView) -> float | None:
    is_same_folder = held.files.index.fingerprint == trained.files.index.fingerprint
    return max(
        (
            held.files.sketch(mine).share_in(trained.files.sketch(other))
            for mine in held.sources
            for other in trained.sources
            if not (is_same_folder and mine == other)
        ),
        default=None,
    )
