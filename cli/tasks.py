"""What `hfgrow eval --tasks` does: benchmarks, and what they leave in a model's folder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfgrow.errors import UsageError, printable
from hfgrow.growth.lm_eval import PAPER_TASKS
from hfgrow.growth.publish import unchanged, write_benchmarks
from hfgrow.lineage.read import read_manifest
from hfgrow.lineage.records import Benchmark, recordable

from .named_models import NamedModel
from .output import Console
from .table import table_lines

PAPER = "paper"


@dataclass(frozen=True, slots=True)
class MeasuredTasks:
    """What tasks came to on a model.

    Attributes:
        name: How the model is called.
        found: The results.
        is_recorded: Whether all of them are in its lineage.
    """

    name: str
    found: tuple[Benchmark, ...]
    is_recorded: bool

    def to_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "model": self.name,
            "recorded": self.is_recorded,
            "benchmarks": [one.to_json() for one in self.found],
        }


def named_tasks(text: str) -> list[str]:
    """Return the tasks that a list says; `paper` stands for those of 2405.15319."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    tasks = [task for word in words for task in (PAPER_TASKS if word == PAPER else (word,))]
    if not tasks:
        raise UsageError("--tasks names none", hint="--tasks paper, or --tasks arc_easy,piqa")
    return list(dict.fromkeys(tasks))


def check_folder(model: NamedModel, console: Console) -> None:
    """Refuse weights that are not those of the lineage, before anything is measured of them."""
    manifest = read_manifest(model.folder) if model.is_given else None
    if manifest is not None:
        unchanged(model.folder, manifest, console)


def measured_tasks(
    models: Sequence[NamedModel],
    tasks: Sequence[str],
    run: Callable[[Path, Sequence[str]], tuple[Benchmark, ...]],
    console: Console,
) -> Iterator[MeasuredTasks]:
    """Run tasks on models; yield what each came to once it is recorded.

    Args:
        models: The models, whose weights are known to be those of their lineage.
        tasks: The names of the tasks.
        run: Runs them on the model of a folder.
        console: Told how it goes on.
    """
    for one in models:
        name = printable(one.name)
        console.say(f"Running {', '.join(tasks)} on {name}")
        found = run(one.folder, tasks)
        for result in found:
            console.say(f"{name}: {result.task} {result.metric} {result.value:.4f}")
        yield MeasuredTasks(one.name, found, _record(one, found, console))


def tasks_measured(
    results: Iterable[MeasuredTasks], console: Console, document: dict[str, Any]
) -> None:
    """Print results of tasks, also of some models where another one fails.

    Args:
        results: The results, measured as they are asked for.
        console: Where they are printed.
        document: Gets them as `tasks`.
    """
    done: list[MeasuredTasks] = []
    try:
        for one in results:
            done.append(one)
            document["tasks"] = [model.to_json() for model in done]
    finally:
        if done:
            if "texts" in document:
                console.part("")
            console.part("\n".join(_lines(done)))


def _record(model: NamedModel, found: Sequence[Benchmark], console: Console) -> bool:
    """Write results into the lineage and the card of a model; return whether all are there."""
    name = printable(model.name)
    manifest = read_manifest(model.folder) if model.is_given else None
    if manifest is None:
        console.say(f"Note: {name} is no folder of hfgrow's, so its results are only printed")
        return False
    taken = recordable(found, manifest.benchmarks)
    if len(taken) < len(found):
        tasks = dict.fromkeys(one.task for one in found if one not in taken)
        console.say(
            f"Note: {name} has results of all examples of {', '.join(tasks)}, which those of "
            "--limit do not replace: they are only printed"
        )
    if taken and not write_benchmarks(model.folder, taken, console):
        console.say(f"Note: README.md of {name} was edited and stays; hfgrow card makes it anew")
    return len(taken) == len(found)


def _lines(measured: Sequence[MeasuredTasks]) -> list[str]:
    """Return all results as a table, a column for each model."""
    keys = dict.fromkeys((one.task, one.metric) for model in measured for one in model.found)
    names = (printable(model.name, 40) for model in measured)
    rows: list[tuple[str, ...]] = [("task", "metric", *names)]
    for task, metric in keys:
        cells = []
        for model in measured:
            one = next((b for b in model.found if (b.task, b.metric) == (task, metric)), None)
            error = "" if one is None or one.stderr is None else f" +- {one.stderr:.4f}"
            cells.append("-" if one is None else f"{one.value:.4f}{error}")
        rows.append((task, metric, *cells))
    return table_lines(rows, 0)
