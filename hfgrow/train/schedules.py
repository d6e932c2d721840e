"""Learning rates as pure functions of the tokens a stage has trained on.

A schedule gives a factor on the peak, from 0 to 1, so that one schedule serves parameter groups of
different peaks. Every stage starts its own with a rise from 0, which is the re-warming that a
growth between two stages wants; a stage without warmup goes on at the peak.

Sources: Hu et al. 2024, "MiniCPM", https://arxiv.org/abs/2404.06395, Sec. 4 (warmup, stable,
decay); Haegele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
Durations", https://arxiv.org/abs/2405.18392, Sec. 3 (the fall 1 - sqrt); Ibrahim et al. 2024,
"Simple and Scalable Strategies to Continually Pre-train Large Language Models",
https://arxiv.org/abs/2403.08763 (re-warming)
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from hfgrow.train.recipe.stages import Train

Kind = Literal["wsd", "cosine", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate of one stage, relative to its peak.

    Attributes:
        kind: `wsd` rises, holds and falls, fast at first; `cosine` rises and falls; `constant`
            rises and holds.
        tokens: Tokens of the stage, at least 1.
        warmup_tokens: Tokens of the linear rise from 0.
        decay_tokens: Tokens of the fall at the end; `wsd` only.
        final_factor: Where the fall ends, from 0 to 1.
        rise_tokens: Tokens of a second rise from 0, which the factor stays below; 0 has none.
    """

    kind: Kind
    tokens: int
    warmup_tokens: int = 0
    decay_tokens: int = 0
    final_factor: float = 0.0
    rise_tokens: int = 0

    def factor(self, tokens: float) -> float:
        """Return the factor on the peak where `tokens` of the stage are trained.

        Args:
            tokens: From 0 to the tokens of the stage; what lies beyond counts as the end.
        """
        most = max(0.0, tokens) / self.rise_tokens if self.rise_tokens else 1.0
        return min(most, self._factor(tokens))

    def _factor(self, tokens: float) -> float:
        if tokens < self.warmup_tokens:
            return max(0.0, tokens) / self.warmup_tokens
        fall = self._fall_tokens
        if not fall:
            return 1.0
        share = min(1.0, max(0.0, 1 - (self.tokens - tokens) / fall))
        return self.final_factor + (1 - self.final_factor) * self._height(share)

    def of_step(self, tokens: int, batch_tokens: int) -> float:
        """Return the factor of an optimizer step: the one at the middle of its batch.

        So the first step of a rise from 0 and the last of a fall to 0 still move the weights.

        Args:
            tokens: Tokens of the stage trained before the step.
        """
        return self.factor(tokens + batch_tokens / 2)

    @property
    def _fall_tokens(self) -> int:
        match self.kind:
            case "wsd":
                return self.decay_tokens
            case "cosine":
                return self.tokens - self.warmup_tokens
            case "constant":
                return 0

    def _height(self, share: float) -> float:
        """Return what is left of the fall, from 1 to 0, where `share` of its tokens are gone."""
        if self.kind == "cosine":
            return (1 + math.cos(math.pi * share)) / 2
        return 1 - math.sqrt(share)


def schedule_of(train: Train, batch_tokens: int) -> Schedule:
    """Return the schedule of a stage of a recipe."""
    return Schedule(
        kind=train.schedule,
        # As many as are trained on: with those of the recipe the last step could have rate 0.
        tokens=train.num_steps(batch_tokens) * batch_tokens,
        warmup_tokens=train.warmup_tokens,
        decay_tokens=train.decay_tokens,
        final_factor=(train.min_learning_rate or 0.0) / train.learning_rate,
    )


def new_schedule_of(train: Train, batch_tokens: int) -> Schedule | None:
    """Return the schedule of what the last growth added; None where it has none of its own.

    It rises for longer and is never above that of the rest, which may fall meanwhile.
    """
    if train.new_warmup is None:
        return None
    return replace(schedule_of(train, batch_tokens), rise_tokens=train.new_warmup_tokens)
