"""When a checkpoint is saved inside a stage, and what of a run was trained but never saved."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hfgrow.console import duration
from hfgrow.train.recipe.parts import Checkpoint

# Where a recipe says nothing: so many a stage, and more often where such a part takes long.
SHARES = 20
_AT_MOST_S = 1800.0
# What a short run pays for nothing, and how many times what a checkpoint takes it trains between.
_AT_LEAST_S, _TIMES = 60.0, 10.0


class Cadence:
    """When the next checkpoint of a run is due.

    Only the main process asks, and tells the others: their clocks differ.

    Args:
        asked: What the recipe says.
        batch_tokens: Tokens of a step.
    """

    def __init__(self, asked: Checkpoint, batch_tokens: int) -> None:
        self._asked, self._batch_tokens = asked, batch_tokens
        self._saved_step = 0
        self._saved_s, self._took_s = time.monotonic(), 0.0

    def begin(self, stage_step: int) -> None:
        """Count from here: a stage begins, or goes on from a checkpoint."""
        self._saved_step, self._saved_s = stage_step, time.monotonic()

    @contextmanager
    def saving(self, stage_step: int) -> Iterator[None]:
        """Take the time of a checkpoint that the block saves."""
        started = time.monotonic()
        yield
        self._took_s = time.monotonic() - started
        self.begin(stage_step)

    def is_due(self, tokens: int, stage_step: int, num_steps: int) -> bool:
        """Say whether a checkpoint is to be saved behind a step.

        Args:
            tokens: Tokens of the run, those of the step among them.
            stage_step: Steps of the stage, this one among them.
            num_steps: Steps that the stage has.
        """
        waited_s = time.monotonic() - self._saved_s
        every = self._asked.every_tokens
        if is_passed(tokens, every, self._batch_tokens):
            return True
        if self._asked.every_minutes is not None:
            return waited_s >= 60 * self._asked.every_minutes
        if every is not None or waited_s < max(_AT_LEAST_S, _TIMES * self._took_s):
            return False
        return SHARES * (stage_step - self._saved_step) >= num_steps or waited_s >= _AT_MOST_S


def is_passed(tokens: int, every: int | None, batch_tokens: int) -> bool:
    """Say whether a multiple of `every` lies in the batch that ends at `tokens`."""
    return every is not None and tokens // every > (tokens - batch_tokens) // every


def cadence_line(asked: Checkpoint) -> str:
    """Return when checkpoints are saved, in words."""
    parts = [f"every {asked.every_tokens:,} tokens"] if asked.every_tokens else []
    if asked.every_minutes:
        parts.append(f"every {duration(60 * asked.every_minutes)}")
    said = " and ".join(parts) or (
        f"every 1/{SHARES} of a stage once a minute is over, or {duration(_AT_MOST_S)}"
    )
    return f"{said}, and at the end of each stage"


def never_saved(metrics: Sequence[Mapping[str, Any]], step: int) -> int:
    """Return how many steps a run has trained beyond the step that it can go on from.

    Args:
        metrics: The lines of its record.
        step: The step of its last checkpoint; 0 where there is none.
    """
    trained = (int(line["step"]) for line in metrics if "loss" in line)
    return max(0, max(trained, default=0) - step)
