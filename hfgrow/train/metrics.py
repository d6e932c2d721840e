"""What a run tells: `metrics.jsonl` always, trackers where the recipe names them, and a line."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hfgrow.progress import Progress
from hfgrow.train.devices import Devices
from hfgrow.train.recipe import Recipe
from hfgrow.train.run_folder import METRICS

_INTERVAL_S = 10.0


class Metrics:
    """The record of a run, written by its main process.

    Args:
        folder: The folder of the run.
        recipe: The recipe, for trackers.
        devices: The processes.
        progress: Told a line now and then.
        step: The optimizer step that a resumed run goes on from; what was written after it is
            taken out, since it happens again. 0 begins anew.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, devices: Devices, progress: Progress, *, step: int
    ) -> None:
        self.progress, self._devices = progress, devices
        self._path = folder / METRICS
        self._trackers = bool(recipe.trackers)
        self._next_s = time.monotonic()
        if devices.is_main:
            kept = [line for line in read_metrics(folder) if line["step"] <= step] if step else []
            text = "".join(f"{json.dumps(line)}\n" for line in kept)
            self._path.write_text(text, encoding="utf-8")
        if self._trackers:
            devices.accelerator.init_trackers(Path(recipe.output).name, config=recipe.identity())

    def write(self, line: Mapping[str, Any], *, said: str = "", always: bool = False) -> None:
        """Record a line.

        Args:
            line: The values, with the optimizer step as `step`.
            said: The same in words.
            always: Whether the words are told also shortly after others.
        """
        if not self._devices.is_main:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
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

    def close(self) -> None:
        """End what the trackers began."""
        if self._trackers:
            self._devices.accelerator.end_training()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run; one that a killed process did not finish ends them."""
    path = folder / METRICS
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


def _numbers(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
