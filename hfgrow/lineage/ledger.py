"""What a model has cost: every stage of its chain, from the root on, and all of them together.

C = sum over stages of 6 N D, with N the parameters that a token passes, of a mixture of experts its
active ones, and D the tokens trained on, is the headline of the literature; the exact count of a
run stands beside it. A growth
trains nothing, but one by learned maps, which passes so many tokens through the grown model. What
the root had cost before is unknown, unless somebody declares it.

Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models",
https://arxiv.org/abs/2001.08361, Sec. 2.1 (6 N for each token); Clark et al. 2022, "Unified Scaling
Laws for Routed Language Models", https://arxiv.org/abs/2202.01169, Sec. 2 (what a token does not
pass costs it nothing)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hfgrow.console import count
from hfgrow.lineage.manifest import GROWTH, TRAINING, Compute, Link, Manifest, Model
from hfgrow.lineage.records import MEASURED
from hfgrow.plan.operators import ALL_OPERATORS
from hfgrow.plan.operators.operator import LearningCost
from hfgrow.plan.plan import GrowthStep

ROOT = "root"
UNKNOWN = "unknown"
# What a stage is called by, and how large it is: of its model, whatever was recorded of its cost.
_MODEL_FIELDS = (
    "name",
    "num_parameters",
    "num_non_embedding_parameters",
    "num_active_parameters",
)
_HEADER = (
    "stage",
    "model",
    "parameters",
    "tokens",
    "6ND FLOPs",
    "exact FLOPs",
    "device hours",
    "devices",
    "source",
)


@dataclass(frozen=True, slots=True)
class LedgerStage:
    """A stage of the ledger; None is unknown.

    Attributes:
        kind: `root`, `growth` or `training`.
        name: The model as it is after the stage.
        num_parameters: All its parameters.
        num_non_embedding_parameters: Those outside embeddings and head.
        num_active_parameters: Those that a token passes, where it is not all.
        tokens: The tokens of the stage.
        flops: 6 FLOPs for each parameter that a token passes, and token.
        exact_flops: Those of matrices and attention.
        seconds: How long its training took.
        devices: On how many devices.
        device: What they are.
        source: `measured`, `declared`, `unknown`, or empty for a growth that trains nothing.
    """

    kind: str
    name: str
    num_parameters: int
    num_non_embedding_parameters: int
    num_active_parameters: int | None = None
    tokens: int | None = None
    flops: float | None = None
    exact_flops: float | None = None
    seconds: float | None = None
    devices: int | None = None
    device: str | None = None
    source: str = UNKNOWN

    @property
    def device_seconds(self) -> float | None:
        """The time of all devices together."""
        if self.seconds is None or self.devices is None:
            return None
        return self.seconds * self.devices

    def to_json(self) -> dict[str, object]:
        """Return all fields; what is unknown is null."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over a ledger; None if a stage does not know.

    Attributes:
        tokens: All tokens.
        flops: 6ND FLOPs of all stages.
        exact_flops: Exact FLOPs of all stages.
        device_seconds: Seconds of all devices.
    """

    tokens: int | None
    flops: float | None
    exact_flops: float | None
    device_seconds: float | None

    def to_json(self) -> dict[str, object]:
        """Return all fields; what is unknown is null."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The stages of a chain, the root first.

    Attributes:
        entries: The stages.
    """

    entries: tuple[LedgerStage, ...]

    @property
    def recorded(self) -> Totals:
        """What the chain itself records: everything but the root."""
        return _totals(self.entries[1:])

    @property
    def total(self) -> Totals:
        """All of it, the root included."""
        return _totals(self.entries)

    @property
    def of_all(self) -> float | None:
        """6ND of what the chain records with all parameters for N, of mixtures too."""
        return _sum(
            None if entry.tokens is None else 6.0 * entry.num_parameters * entry.tokens
            for entry in self.entries[1:]
            if entry.kind == TRAINING or entry.flops
        )

    def to_json(self) -> dict[str, object]:
        """Return stages and sums."""
        return {
            "stages": [entry.to_json() for entry in self.entries],
            "recorded": self.recorded.to_json(),
            "total": self.total.to_json(),
        }


def ledger(manifest: Manifest) -> Ledger:
    """Return what a model has cost, stage by stage."""
    return Ledger(tuple(_entries(manifest)))


def rows(found: Ledger) -> list[tuple[str, ...]]:
    """Return a ledger as a table of texts: the header, the stages, the sums.

    The sum with the root stands there where somebody declares what the root had cost.
    """
    table = [_HEADER, *(_row(entry) for entry in found.entries)]
    recorded, total = found.recorded, found.total
    table.append(_sum_row("recorded here", recorded))
    if total.tokens is not None:
        table.append(_sum_row("with the root", total))
    return table


def _entries(manifest: Manifest) -> Iterator[LedgerStage]:
    yield _trained(ROOT, manifest.root, manifest.root_compute)
    for place, link in enumerate(manifest.chain, 1):
        if isinstance(link, Link):
            yield _growth(link)
        else:
            yield _trained(TRAINING, link.result, link.compute)
        for _ in (one for one in manifest.elsewhere if one.after == place):
            yield _trained(TRAINING, link.result, None)


def _growth(link: Link) -> LedgerStage:
    learned = [cost for step in link.steps if (cost := _learning_cost(step))]
    tokens = _sum(cost.tokens for cost in learned)
    return LedgerStage(
        kind=GROWTH,
        **_model(link.result),
        tokens=None if tokens is None else int(tokens),
        flops=None if tokens is None else 6.0 * link.result.num_passed_parameters * tokens,
        exact_flops=_sum(cost.exact_flops for cost in learned),
        seconds=_sum(cost.seconds for cost in learned),
        devices=1 if learned else 0,
        source=MEASURED if learned else "",
    )


def _learning_cost(step: GrowthStep) -> LearningCost | None:
    row = ALL_OPERATORS.get(step.operator)
    return row.cost(step.arguments) if row and row.cost else None


def _trained(kind: str, model: Model, compute: Compute | None) -> LedgerStage:
    cost = asdict(compute) if compute else {}
    if compute and compute.tokens == 0:
        # What is not known of it was nothing.
        nothing = {"exact_flops": 0.0, "seconds": 0.0, "devices": 0}
        cost |= {key: cost[key] or zero for key, zero in nothing.items()}
    known = _model(model)
    active = known["num_active_parameters"]
    if compute and active is None:
        # Of a derived family the run alone says what an expert is.
        known["num_active_parameters"] = compute.num_active_parameters
    elif compute and compute.num_active_parameters is None:
        # An older record counts all experts.
        cost["flops"] = 6.0 * active * compute.tokens
    return LedgerStage(kind=kind, **cost | known)


def _model(model: Model) -> dict[str, Any]:
    return {key: getattr(model, key) for key in _MODEL_FIELDS}


def _totals(entries: Sequence[LedgerStage]) -> Totals:
    tokens = _sum(entry.tokens for entry in entries)
    return Totals(
        tokens=None if tokens is None else int(tokens),
        flops=_sum(entry.flops for entry in entries),
        exact_flops=_sum(entry.exact_flops for entry in entries),
        device_seconds=_sum(entry.device_seconds for entry in entries),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    found = [value for value in known if value is not None]
    return sum(found) if len(found) == len(known) else None


def _row(entry: LedgerStage) -> tuple[str, ...]:
    if entry.kind == GROWTH and entry.flops == 0:
        return (entry.kind, entry.name, _size(entry), *["-"] * 6)
    devices = UNKNOWN if entry.devices is None else str(entry.devices)
    if entry.devices is not None and entry.device:
        devices += f" x {entry.device}"
    return (
        entry.kind,
        entry.name,
        _size(entry),
        *_costs(entry),
        devices,
        entry.source,
    )


def _size(entry: LedgerStage) -> str:
    total, active = count(entry.num_parameters), entry.num_active_parameters
    return total if active is None else f"{total}, {count(active)} active"


def _sum_row(name: str, totals: Totals) -> tuple[str, ...]:
    return (name, "", "", *_costs(totals), "", "")


def _costs(cost: LedgerStage | Totals) -> tuple[str, ...]:
    """Return the columns that stages and sums share."""
    hours = None if cost.device_seconds is None else cost.device_seconds / 3600
    return (
        UNKNOWN if cost.tokens is None else count(cost.tokens),
        *(
            UNKNOWN if number is None else f"{number:.3g}"
            for number in (cost.flops, cost.exact_flops, hours)
        ),
    )
