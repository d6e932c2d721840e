"""Benchmarks through lm-evaluation-harness, in a process of its own.

Source: Gao et al., "A framework for few-shot language model evaluation",
https://github.com/EleutherAI/lm-evaluation-harness, and its version 0.4.13 for the file of results
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import REPO_NAME
from hfgrow.checkpoint.locks import scratch_folder
from hfgrow.errors import GrowthError, HubUnreachableError, TrainingError, UsageError, printable
from hfgrow.lineage.records import Benchmark, is_benchmark_name

# What Du et al. 2024 (https://arxiv.org/abs/2405.15319, Sec. 3.2) measure.
PAPER_TASKS = (
    "arc_challenge",
    "arc_easy",
    "lambada_openai",
    "logiqa",
    "piqa",
    "sciq",
    "winogrande",
    "wikitext",
)
_NO_FILTER = "none"
# What a loader of local files is called; no dataset of the Hub.
_LOADERS = frozenset({"json", "csv", "parquet", "text", "arrow"})


def run_tasks(
    folder: Path,
    tasks: Sequence[str],
    *,
    device: str,
    batch_size: str,
    num_fewshot: int | None = None,
    limit: int | None = None,
    include: Path | None = None,
    quiet: bool = False,
    token: str | None = None,
) -> tuple[Benchmark, ...]:
    """Run tasks on a model.

    Args:
        tasks: Names of tasks of the harness.
        device: Where it runs: `cpu`, `cuda:0`.
        batch_size: Sequences at once, or `auto`.
        num_fewshot: Examples in front of each; None takes the task's own.
        limit: The most examples of each task; None takes all.
        include: A folder of tasks of one's own.
        quiet: Whether what the harness says is not shown.
        token: The Hub token; None leaves the environment's.

    Raises:
        UsageError: There is no such task.
        HubUnreachableError: The dataset of one is not to be had.
        TrainingError: The harness failed.
    """
    with scratch_folder() as scratch:
        # A name that its parser of arguments cannot take for several.
        model, results = scratch / "model", scratch / "results"
        model.symlink_to(folder.resolve(), target_is_directory=True)
        # -P: nothing of the folder that it runs in is imported.
        command = [sys.executable, "-P", "-m", "lm_eval", "run", "--model", "hf"]
        command += ["--model_args", f"pretrained={model}", "--tasks", ",".join(tasks)]
        command += ["--device", device, "--batch_size", batch_size, "--output_path", str(results)]
        if num_fewshot is not None:
            command += ["--num_fewshot", str(num_fewshot)]
        if limit is not None:
            command += ["--limit", str(limit)]
        if include is not None:
            command += ["--include_path", str(include.resolve())]
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONSAFEPATH": "1"}
        if token is not None:
            environment |= {"HF_TOKEN": token}
        said = _run(command, environment, scratch, quiet=quiet)
        found = sorted(results.rglob("results_*.json"))
        if not found:
            raise _failure(tasks, said, quiet=quiet)
        content = json.loads(found[-1].read_text(encoding="utf-8"))
    return tuple(read_results(content))


def read_results(content: Mapping[str, Any]) -> Iterator[Benchmark]:
    """Yield the metrics of a file of results, without those that are no number.

    Args:
        content: The file, as JSON.

    Raises:
        TrainingError: It is none that is understood.
    """
    try:
        harness = f"lm-eval {content['lm_eval_version']}"
        for task, metrics in content["results"].items():
            yield from _metrics(content, task, metrics, harness)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"the results of lm-eval are not understood: {type(error).__name__} {error}",
            hint="pip install 'hfgrow[eval]' installs a version that is",
        ) from error


def _metrics(
    content: Mapping[str, Any], task: str, metrics: Mapping[str, Any], harness: str
) -> Iterator[Benchmark]:
    config = content["configs"].get(task)
    if config is None or not is_benchmark_name(task):
        # A group of tasks, whose members are there themselves.
        return
    samples = content["n-samples"][task]
    effective, original = int(samples["effective"]), int(samples["original"])
    dataset = config.get("dataset_path")
    on_hub = isinstance(dataset, str) and dataset not in _LOADERS and REPO_NAME.fullmatch(dataset)
    named, split = config.get("dataset_name"), config.get("test_split")
    split = split or config.get("validation_split")
    version = content["versions"].get(task)
    for key, value in metrics.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not _is_finite(value):
            continue
        name = metric if filtered == _NO_FILTER else key
        stderr: Any = metrics.get(f"{metric}_stderr,{filtered}")
        yield Benchmark(
            task=task,
            metric=name,
            value=float(value),
            num_samples=effective,
            num_fewshot=int(content["n-shot"].get(task) or 0),
            harness=harness,
            stderr=float(stderr) if _is_finite(stderr) else None,
            num_all_samples=original if original != effective else None,
            version=None if version is None else str(version),
            dataset=dataset if on_hub else None,
            config=named if on_hub and is_benchmark_name(named) else None,
            split=split if is_benchmark_name(split) else None,
        )


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _run(command: Sequence[str], environment: Mapping[str, str], cwd: Path, *, quiet: bool) -> str:
    """Run a command, and show and return what it says."""
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line)
                if not quiet:
                    print(line, end="", file=sys.stderr, flush=True)
        except BaseException:
            process.kill()
            raise
    return "".join(said[-400:])


def _failure(tasks: Sequence[str], said: str, *, quiet: bool) -> GrowthError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = printable(lines[-1], 300) if lines else "it said nothing"
    # How its traceback ends.
    if last.startswith("ValueError: Tasks not found:"):
        return UsageError(
            f"lm-eval has no task {last.rpartition(':')[2].strip()}",
            hint=f"{sys.executable} -m lm_eval ls tasks",
        )
    why = f"lm-eval measured nothing of {', '.join(tasks)}: {last}"
    if last.startswith("ConnectionError"):
        return HubUnreachableError(why, hint="the datasets of tasks come from the Hub")
    if quiet:
        return TrainingError(why, hint="run again, not quiet, to see all that it says")
    return TrainingError(why, hint="what it said before that stands above")
