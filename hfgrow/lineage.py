"""hfgrow.json: the chain from the root model to this one, every growth in it reproducible.

A manifest is a list of links, the root's first. A growth says what was grown (repository, commit,
sha256 of each weight file), by which steps (operator, arguments, layer map), how it was written,
what came out, and what was measured; a training says on what text, how, at what cost, and what it
did to the loss. A model that grows or trains again appends one link.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from hfgrow.benchmark import Benchmark, recordable
from hfgrow.errors import ModelError, printable
from hfgrow.fields import as_phrase
from hfgrow.links import WIDTHS, Link, Model, TrainingLink, WeightFile, changes_layers
from hfgrow.plan.plan import GrowthStep
from hfgrow.plan.promise import Measured
from hfgrow.trained import Compute, Evaluated, TrainingSource

__all__ = [
    "GROWTH",
    "SCHEMA",
    "TRAINING",
    "WIDTHS",
    "Compute",
    "Evaluated",
    "Link",
    "Manifest",
    "Model",
    "TrainingLink",
    "TrainingSource",
    "WeightFile",
    "changes_layers",
    "config_record",
]

SCHEMA = 1
# What a link of the chain is; a reader must not take one for the other, nor later kinds for these.
GROWTH, TRAINING = "growth", "training"
# A list of numbers spread over lines, as json.dumps writes a layer map.
_NUMBERS = re.compile(r"\[\n\s+\d+(?:,\s+\d+)*\s+\]")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The chain of links, the root's first.

    Attributes:
        chain: The links.
        root_compute: What the root had cost before, if somebody declares it.
        benchmarks: What was measured of the last model of the chain.
    """

    chain: tuple[Link | TrainingLink, ...]
    root_compute: Compute | None = None
    benchmarks: tuple[Benchmark, ...] = ()

    @property
    def root(self) -> Model:
        """The model that the first link starts from."""
        return self.chain[0].base

    @property
    def link(self) -> Link | TrainingLink:
        """The last link."""
        return self.chain[-1]

    @property
    def growth(self) -> Link:
        """The last link, where only a growth will do.

        Raises:
            ModelError: It is a training.
        """
        if isinstance(self.link, TrainingLink):
            raise ModelError(
                f"{printable(self.link.result.name)} was trained after growth, and trained weights "
                "cannot be derived from its base",
                hint="hfgrow verify FOLDER compares them with what its training recorded",
            )
        return self.link

    @property
    def last_growth(self) -> Link | None:
        """The last growth of the chain, whatever came after it."""
        return next((link for link in reversed(self.chain) if isinstance(link, Link)), None)

    @property
    def is_from_scratch(self) -> bool:
        """Whether the root were random weights, which nobody had trained."""
        return self.root_compute is not None and not self.root_compute.tokens

    @property
    def trainings(self) -> tuple[TrainingLink, ...]:
        """The trainings of the chain."""
        return tuple(link for link in self.chain if isinstance(link, TrainingLink))

    def to_json(self) -> str:
        """Return the text of hfgrow.json."""
        content: dict[str, object] = {"schema": SCHEMA}
        if self.root_compute is not None:
            content["root_compute"] = self.root_compute.to_json()
        content["chain"] = [
            _link_json(link) if isinstance(link, Link) else _training_json(link)
            for link in self.chain
        ]
        if self.benchmarks:
            content["benchmarks"] = [found.to_json() for found in self.benchmarks]
        text = json.dumps(content, indent=2, ensure_ascii=False)
        return _NUMBERS.sub(lambda match: " ".join(match[0].split()), text) + "\n"

    def with_measured(self, measured: Measured | None) -> "Manifest":
        """Return the manifest with a measurement in its last link, a growth."""
        return self._ending_in(replace(self.growth, measured=measured))

    def with_result_files(self, files: Mapping[str, WeightFile]) -> "Manifest":
        """Return the manifest with other records of the result's weight files."""
        return self._ending_in(replace(self.link, result=replace(self.link.result, files=files)))

    def followed_by(self, link: Link | TrainingLink) -> "Manifest":
        """Return the manifest with one more link, without the benchmarks of the model before."""
        return replace(self, chain=(*self.chain, link), benchmarks=())

    def with_benchmarks(self, found: Sequence[Benchmark]) -> "Manifest":
        """Return the manifest with what may be recorded of results, those of the tasks replaced."""
        taken = recordable(found, self.benchmarks)
        tasks = {benchmark.task for benchmark in taken}
        kept = (benchmark for benchmark in self.benchmarks if benchmark.task not in tasks)
        return replace(self, benchmarks=(*kept, *taken))

    def _ending_in(self, link: Link | TrainingLink) -> "Manifest":
        return replace(self, chain=(*self.chain[:-1], link))

    @property
    def root_layer_map(self) -> tuple[int, ...]:
        """For every layer, the 0-based layer of the root it comes from."""
        current = tuple(range(self.root.num_hidden_layers))
        for link in self.chain:
            current = tuple(current[i] for i in link.layer_map)
        return current


def config_record(link: Link | TrainingLink) -> dict[str, object]:
    """Return the small record that goes into config.json."""
    record: dict[str, object] = {
        "schema": SCHEMA,
        "base": link.base.repo_id or link.base.name,
    }
    if isinstance(link, Link):
        record["operators"] = [step.operator for step in link.steps]
    else:
        record["trained_tokens"] = link.compute.tokens
    if link.base.revision:
        record["base_revision"] = link.base.revision
    return record


def _link_json(link: Link) -> dict[str, object]:
    content: dict[str, object] = {
        "kind": GROWTH,
        "base": _model_json(link.base),
        "steps": [_step_json(step) for step in link.steps],
        "dtype": link.dtype,
        "max_shard_nbytes": link.max_shard_nbytes,
        "result": _model_json(link.result),
        "versions": dict(link.versions),
        "card": dict(link.card),
        "num_computed": link.num_computed,
    }
    if link.measured is not None:
        content["measured"] = link.measured.to_json()
    return content


def _training_json(link: TrainingLink) -> dict[str, object]:
    return {
        "kind": TRAINING,
        "base": _model_json(link.base),
        "stage": link.stage,
        "data": [source.to_json() for source in link.data],
        "optimizer": as_phrase(link.optimizer),
        "learning_rate": link.learning_rate,
        "schedule": as_phrase(link.schedule),
        "batch_tokens": link.batch_tokens,
        "sequence_length": link.sequence_length,
        "precision": link.precision,
        "seed": link.seed,
        "trainable": as_phrase(link.trainable),
        "settings": dict(link.settings),
        "compute": link.compute.to_json(),
        "evaluations": [evaluated.to_json() for evaluated in link.evaluations],
        "result": _model_json(link.result),
        "versions": dict(link.versions),
        "card": dict(link.card),
    }


def _model_json(model: Model) -> dict[str, object]:
    return {
        **{key: value for key, value in asdict(model).items() if value is not None},
        "files": {
            name: {"nbytes": file.nbytes} | ({"sha256": file.sha256} if file.sha256 else {})
            for name, file in model.files.items()
        },
    }


def _step_json(step: GrowthStep) -> dict[str, object]:
    """Return a step; a copied layer is written as its number, others as [layer, mode]."""
    return {
        "operator": step.operator,
        "arguments": dict(step.arguments),
        "layer_map": [
            source.layer if source.mode == "copy" else [source.layer, source.mode]
            for source in step.layer_map
        ],
        "preserves_function": step.preserves_function,
    }
