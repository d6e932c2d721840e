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
        num_skipped_in_all: Those of the whole run.
        evaluations: Held-out losses so far: tokens, when, and for each text what it cost.
    """

    stage: int = 0
    stage_step: int = 0
    stage_seconds: float = 0.0
    step: int = 0
    samples: int = 0
    tokens: int = 0
    num_skipped: int = 0
    num_skipped_in_all: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)

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
        return cls(**content)
