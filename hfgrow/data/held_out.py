"""Validation text: taken out of the training text by documents, and what it shares with that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from hfgrow.data.hashing import mixed
from hfgrow.data.sketch import WINDOW_TOKENS
from hfgrow.data.views import Ranges, TokenView
from hfgrow.errors import TrainingError

# Two texts may quote the same sentence now and then.
_HARMLESS_SHARE = 0.01


@dataclass(frozen=True)
class HeldOut:
    """A view in two: what is trained on, and what is held out; `by_documents` if whole ones are."""

    train: TokenView
    validation: TokenView
    by_documents: bool


def hold_out(view: TokenView, fraction: float, *, at_least: int, seed: int) -> HeldOut:
    """Hold out whole documents, picked by the hash of their text and the seed.

    Documents of equal text stay together, so that none of the held-out ones is trained on. Where no
    document is short enough, the end of the text is held out.

    Args:
        fraction: The part of its tokens to hold out, above 0 and below 1; up to twice as much is,
            as documents are long.
        at_least: The fewest tokens to hold out, such as those of one sequence.
        seed: Another seed holds out others.

    Raises:
        TrainingError: More than half of the text would be held out.
    """
    target = max(at_least, ceil(view.num_tokens * fraction))
    if 2 * target > view.num_tokens:
        raise TrainingError(
            f"{view.label} has {view.num_tokens} tokens, too few to hold out {target} of them",
            hint="give it more text, or name validation text"
            if view.num_tokens >= at_least
            else "give it more text, or choose a smaller sequence_length",
        )
    lo, hi = _whole_documents(view)
    first, end = (view.files.starts[i:j] for i, j in ((lo, hi), (lo + 1, hi + 1)))
    lengths = (np.asarray(end) - np.asarray(first)).astype(np.int64)
    _, group = np.unique(np.asarray(view.files.hashes[lo:hi]), return_inverse=True)
    group_lengths = np.bincount(group, weights=lengths).astype(np.int64)
    keys = np.zeros(len(group_lengths), np.uint64)
    keys[group] = mixed(np.asarray(view.files.hashes[lo:hi]), seed)
    picked = np.argsort(
        np.where(group_lengths <= target, keys, np.uint64(2**64 - 1)), kind="stable"
    )
    picked = picked[group_lengths[picked] <= target]
    needed = int(np.searchsorted(np.cumsum(group_lengths[picked]), target)) + 1
    if needed > len(picked):
        cut = view.num_tokens - target
        return HeldOut(view.between(0, cut), view.between(cut, view.num_tokens), False)
    is_held = np.isin(group, picked[:needed])
    ranges = np.stack((np.asarray(first), np.asarray(end)), axis=1).astype(np.int64)
    before = [[view.ranges[0, 0], ranges[0, 0]]]
    after = [[ranges[-1, 1], view.ranges[0, 1]]]
    trained = np.concatenate((before, ranges[~is_held], after))
    return HeldOut(
        replace(view, ranges=_joined(trained)),
        replace(view, ranges=_joined(ranges[is_held])),
        True,
    )


def _whole_documents(view: TokenView) -> tuple[int, int]:
    """Return the documents [lo, hi) that lie whole in a view of one range."""
    if len(view.ranges) != 1:
        raise ValueError("text is held out of one range only")
    lo, hi = np.searchsorted(view.files.starts, view.ranges[0].astype(np.uint64))
    if view.files.starts[hi] != view.ranges[0, 1]:
        hi -= 1
    return int(lo), max(int(lo), int(hi))


def _joined(ranges: Ranges) -> Ranges:
    """Join ranges that touch, and drop empty ones."""
    ranges = ranges[ranges[:, 0] < ranges[:, 1]]
    if not len(ranges):
        return ranges
    begins = np.concatenate(([True], ranges[1:, 0] != ranges[:-1, 1]))
    ends = np.concatenate((begins[1:], [True]))
    return np.stack((ranges[begins, 0], ranges[ends, 1]), axis=1)


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
        parts = []
        if self.num_documents:
            parts.append(f"{self.num_shared} of {self.num_documents} validation documents")
        if self.share is not None:
            parts.append(f"{self.share:.0%} of the passages of {WINDOW_TOKENS} tokens")
        return (
            f"{' and '.join(parts)} of {self.validation} stand in the training text {self.train} "
            "too: the validation loss is too low by that"
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
