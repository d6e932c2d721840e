"""What a run records: `metrics.jsonl` always, trackers where the recipe names them, and a line.

`Position` is where it stands: all of a checkpoint that is no tensor and no parameter group.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import Pace, Progress
from hfgrow.errors import TrainingError, printable
from hfgrow.train.devices import Devices
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.run_folder import METRICS, run_name


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

    def seconds_left(self, num_steps: int, begin: tuple[int, float]) -> float:
        """Return the seconds that the rest of the stage takes; 0 where no two steps tell it.

        Args:
            begin: `stage_step` and `stage_seconds` where this session took the stage up: an earlier
                one may have run at another speed.
        """
        num_done = self.stage_step - begin[0]
        if num_done < 2:
            return 0.0
        return (self.stage_seconds - begin[1]) / num_done * (num_steps - self.stage_step)

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


_INTERVAL_S = 5.0
# A step or an evaluation that takes longer tells how far it is.
_WITHIN_S = 5.0


class Metrics:
    """The record of a run, written by its main process.

    Args:
        folder: The folder of the run.
        recipe: The recipe, for trackers.
        devices: The processes.
        progress: Told a line now and then.
        begin: Where a resumed run goes on from; what was written of later stages or steps is taken
            out, since it happens again. Step 0 begins anew.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, devices: Devices, progress: Progress, *, begin: Position
    ) -> None:
        self.progress, self._devices = progress, devices
        self._path = folder / METRICS
        self._trackers = bool(recipe.trackers)
        self._next_s = time.monotonic()
        if devices.is_main:
            kept = [line for line in read_metrics(folder) if _is_before(line, begin)]
            with translated(printable(folder, 200)):
                replace_text(self._path, "".join(f"{json.dumps(line)}\n" for line in kept))
        if self._trackers:
            # tensorboard takes nothing but numbers and texts.
            settings = {
                key: value if isinstance(value, int | float | str) else json.dumps(value)
                for key, value in recipe.identity().items()
            }
            devices.accelerator.init_trackers(run_name(recipe), config=settings)

    def write(self, line: Mapping[str, Any], *, said: str = "", always: bool = False) -> None:
        """Record a line.

        Args:
            line: The values, with the optimizer step as `step`.
            said: The same in words.
            always: Whether the words are told also shortly after others.
        """
        if not self._devices.is_main:
            return
        with translated(printable(self._path, 200)), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(_finite(line))}\n")
        if self._trackers:
            values = dict(_numbers(line))
            self._devices.accelerator.log(values, step=int(line["step"]))
        now = time.monotonic()
        if said and (always or now >= self._next_s):
            self.progress.say(said)
            self._next_s = now + _INTERVAL_S

    def say(self, text: str) -> None:
        """Tell a line that is not recorded."""
        if self._devices.is_main:
            self.progress.say(text)

    def within(self, what: str, num_tokens: int) -> Callable[[float], None]:
        """Return a function that tells which share of something is done, once it takes over 5 s.

        Args:
            what: What is done.
            num_tokens: The tokens of all of it.
        """
        pace = Pace(num_tokens, "{:,}".format, first_s=_WITHIN_S)

        def tell(share: float) -> None:
            if state := pace.due(int(share * num_tokens)):
                self.say(f"  {what}, tokens: {state}")

        return tell

    def close(self) -> None:
        """End what the trackers began."""
        # Not `end_training`, which also leaves the other processes.
        for tracker in self._devices.accelerator.trackers if self._trackers else ():
            tracker.finish()


# What every line says: where the run stood.
_PLACE = ("stage", "step")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run; one that a killed process did not finish, or damage, ends them."""
    path = folder / METRICS
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                break
            if not isinstance(line, dict) or not all(isinstance(line.get(k), int) for k in _PLACE):
                break
            lines.append(line)
    return lines


def recorded_evaluations(folder: Path, end: Position) -> list[dict[str, Any]]:
    """Return what `Position.evaluations` was where a run stood, from its record."""
    lines = (line for line in read_metrics(folder) if "when" in line and _is_before(line, end))
    return [{key: value for key, value in line.items() if key != "step"} for line in lines]


def _is_before(line: Mapping[str, Any], begin: Position) -> bool:
    """Say whether a line stays: one step may have lines of a stage's end and the next's start."""
    return bool(begin.step) and (line["stage"], line["step"]) <= (begin.stage, begin.step)


def _finite(value: Any) -> Any:
    """Return a value as JSON can hold it: what is no finite number is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
