"""Where a run stands: everything of a checkpoint that is no tensor and no parameter group."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hfgrow.errors import TrainingError


@dataclass(slots=True)
class Position:
    """Where a run stands.

    Attributes:
        stage: The stage that trains, from 0.
        stage_step: Optimizer steps of it that are done.
        stage_seconds: Seconds that they took, evaluations and checkpoints not counted.
        step: Optimizer steps of the run.
        samples: Samples consumed, which is all that the order of the data depends on.
        tokens: Tokens trained on.
        num_skipped: Steps in a row that were skipped because a number was not finite.
        num_skipped_in_stage: Those of the stage.
        evaluations: Held-out losses so far: tokens, when, and for each text what it cost.
    """

    stage: int = 0
    stage_step: int = 0
    stage_seconds: float = 0.0
    step: int = 0
    samples: int = 0
    tokens: int = 0
    num_skipped: int = 0
    num_skipped_in_stage: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def begin_stage(self, number: int) -> None:
        """Stand at the start of a stage; in one that was begun already, where it stands."""
        if number > self.stage:
            self.stage, self.stage_step, self.stage_seconds = number, 0, 0.0
            self.num_skipped_in_stage = 0

    def advance(self, num_steps: int, *, samples: int, tokens: int, seconds: float = 0.0) -> None:
        """Count steps of the stage, each of so many samples and tokens."""
        self.step, self.stage_step = self.step + num_steps, self.stage_step + num_steps
        self.samples += num_steps * samples
        self.tokens += num_steps * tokens
        self.stage_seconds += seconds

    def count_skipped(self, is_skipped: bool) -> None:
        """Count whether the last step was skipped."""
        self.num_skipped = self.num_skipped + 1 if is_skipped else 0
        self.num_skipped_in_stage += is_skipped

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def of_json(cls, content: Any) -> "Position":
        """Return what `to_json` returned.

        Raises:
            TrainingError: It is something else.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(content, dict) or content.keys() != names:
            raise TrainingError("the checkpoint was written by another version of hfgrow")
        begin = asdict(cls())
        if not all(_is_like(value, begin[name]) for name, value in content.items()):
            raise TrainingError("the position in the checkpoint is damaged")
        return cls(**content)


def _is_like(value: object, other: object) -> bool:
    """Say whether a value is of the kind of another: a list of mappings, or a number."""
    if isinstance(other, list):
        return isinstance(value, list) and all(isinstance(item, dict) for item in value)
    kinds = (int, float) if isinstance(other, float) else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0
