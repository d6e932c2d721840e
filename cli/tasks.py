"""What `hfgrow eval --tasks` does: benchmarks, and what they leave in a model's folder."""

from collections.abc import Sequence

from hfgrow.benchmark import Benchmark
from hfgrow.errors import UsageError, printable
from hfgrow.harness import PAPER_TASKS
from hfgrow.manifest import read_manifest
from hfgrow.release import unchanged, write_benchmarks

from .named_models import NamedModel
from .output import Console
from .table import table_lines

PAPER = "paper"


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


def record(model: NamedModel, found: Sequence[Benchmark], console: Console) -> bool:
    """Write results into the lineage and the card of a model; return whether there is one."""
    name = printable(model.name)
    if not model.is_given or read_manifest(model.folder) is None:
        console.say(f"Note: {name} is no folder of hfgrow's, so its results are only printed")
        return False
    if not write_benchmarks(model.folder, found, console):
        console.say(f"Note: README.md of {name} was edited and stays; hfgrow card makes it anew")
    return True


def benchmark_lines(measured: Sequence[tuple[str, Sequence[Benchmark]]]) -> list[str]:
    """Return all results as a table, a column for each model."""
    keys = dict.fromkeys((one.task, one.metric) for _, found in measured for one in found)
    rows: list[tuple[str, ...]] = [("task", "metric", *(printable(n, 40) for n, _ in measured))]
    for task, metric in keys:
        cells = []
        for _, found in measured:
            one = next((b for b in found if (b.task, b.metric) == (task, metric)), None)
            error = "" if one is None or one.stderr is None else f" +- {one.stderr:.4f}"
            cells.append("-" if one is None else f"{one.value:.4f}{error}")
        rows.append((task, metric, *cells))
    return table_lines(rows, 0)
