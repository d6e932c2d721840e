"""Results of benchmarks, as hfgrow.json and the card of a model record them.

They are of the weights that they were measured on: a model that grows or trains from these starts
without any.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hfgrow.fields import checked, is_phrase, is_word, number, object_of, optional, real, shaped
from hfgrow.trained import DATASET

_NAME = re.compile(r"[\w.,:@-]{1,100}", re.ASCII)
_MOST = 1e39


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One metric of one task.

    Attributes:
        task: Its name in the harness: `arc_challenge`.
        metric: The metric's: `acc_norm`, with the filter behind a comma if it has one.
        value: The result.
        num_samples: How many examples it is the mean of.
        num_fewshot: Examples in front of each.
        harness: What measured it, with its version: `lm-eval 0.4.13`.
        stderr: The standard error of the value; None is unknown, here and below.
        num_all_samples: How many examples the split has, if not all were taken.
        version: Of the task.
        dataset: The repository of its dataset on the Hub.
        config: The configuration of that.
        split: The split.
    """

    task: str
    metric: str
    value: float
    num_samples: int
    num_fewshot: int
    harness: str
    stderr: float | None = None
    num_all_samples: int | None = None
    version: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None

    @property
    def is_limited(self) -> bool:
        """Whether only some of the examples were taken: a look, not a claim."""
        return self.num_all_samples is not None

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def benchmark_of(value: Any) -> Benchmark:
    """Read a result out of hfgrow.json, which may come from a stranger.

    Raises:
        ModelError: A field is missing, of the wrong kind, or out of bounds.
    """
    content = object_of(value, "benchmarks")
    return Benchmark(
        task=shaped(content, "task", _NAME),
        metric=shaped(content, "metric", _NAME),
        value=float(checked(content, "value", _is_value)),
        num_samples=number(content, "num_samples", least=1),
        num_fewshot=number(content, "num_fewshot"),
        harness=str(checked(content, "harness", is_phrase)),
        stderr=None if content.get("stderr") is None else real(content, "stderr"),
        num_all_samples=_optional_number(content, "num_all_samples"),
        version=_optional_word(content, "version"),
        dataset=optional(content, "dataset", DATASET),
        config=optional(content, "config", _NAME),
        split=optional(content, "split", _NAME),
    )


def recordable(found: Sequence[Benchmark], earlier: Sequence[Benchmark]) -> tuple[Benchmark, ...]:
    """Return the results that may be recorded beside or instead of earlier ones.

    Those of some examples do not replace those of all.
    """
    whole = {benchmark.task for benchmark in earlier if not benchmark.is_limited}
    return tuple(one for one in found if not one.is_limited or one.task not in whole)


def is_benchmark_name(value: object) -> bool:
    """Say whether a name of a task, metric, configuration or split can be recorded."""
    return isinstance(value, str) and bool(_NAME.fullmatch(value))


def model_index(benchmarks: tuple[Benchmark, ...], name: str) -> list[dict[str, Any]]:
    """Return the `model-index` of a card's metadata.

    Only tasks whose dataset lies on the Hub are listed, since the Hub wants its repository, and
    only results of all examples.

    Args:
        benchmarks: The results.
        name: The model's name.
    """
    results: dict[str, dict[str, Any]] = {}
    for found in benchmarks:
        if found.dataset is None or found.is_limited:
            continue
        dataset = {"name": found.task, "type": found.dataset}
        dataset |= {"config": found.config} if found.config else {}
        dataset |= {"split": found.split} if found.split else {}
        result = results.setdefault(
            found.task,
            {
                "task": {"type": "text-generation", "name": "Text Generation"},
                "dataset": dataset,
                "metrics": [],
                "source": {
                    "name": found.harness,
                    "url": "https://github.com/EleutherAI/lm-evaluation-harness",
                },
            },
        )
        metric = {"type": found.metric.partition(",")[0], "value": found.value}
        result["metrics"].append(metric | {"name": f"{found.metric}, {found.num_fewshot}-shot"})
    return [{"name": name, "results": list(results.values())}] if results else []


def benchmark_section(benchmarks: tuple[Benchmark, ...]) -> list[str]:
    """Return the section of the card about them."""
    rows = [
        f"| `{found.task}` | `{found.metric}` | {found.value:.4f} | "
        f"{'-' if found.stderr is None else f'{found.stderr:.4f}'} | {found.num_fewshot} | "
        f"{found.num_samples:,}{_of_all(found)} |"
        for found in benchmarks
    ]
    harnesses = ", ".join(dict.fromkeys(found.harness for found in benchmarks))
    return [
        "## Benchmarks",
        "",
        "| task | metric | value | standard error | few-shot | examples |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Measured on these weights by {harnesses}.",
    ]


def _of_all(found: Benchmark) -> str:
    return f" of {found.num_all_samples:,}" if found.num_all_samples else ""


def _is_value(value: object) -> bool:
    """Say whether a value is a finite number; a correlation may be below 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and isinstance(value, int | float) and abs(value) <= _MOST


def _optional_number(content: Mapping[str, Any], key: str) -> int | None:
    return None if content.get(key) is None else number(content, key, least=1)


def _optional_word(content: Mapping[str, Any], key: str) -> str | None:
    return None if content.get(key) is None else str(checked(content, key, is_word))
