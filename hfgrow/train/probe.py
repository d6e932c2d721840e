"""Short trainings that were made for a comparison, and the file that remembers them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.errors import printable

RECORD = "comparison.json"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a short training after growth said.

    Attributes:
        operator: The growth as one types it.
        num_parameters: Of the grown model.
        num_hidden_layers: Of the grown model.
        before: Loss on held-out text before growth, in nats a token.
        just_after: Just after growth.
        after: After the probe.
        bits_per_byte: The last of these, in bits a byte.
        flops: What the probe cost: 6 for each parameter and token.
    """

    operator: str
    num_parameters: int
    num_hidden_layers: int
    before: float
    just_after: float
    after: float
    bits_per_byte: float
    flops: float


@dataclass(frozen=True, slots=True)
class RecordedProbe:
    """A probe, and how it was made: model, texts, tokens, learning rate, seed."""

    probe: Probe
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as the file has it."""
        return {**asdict(self.probe), "settings": dict(self.settings)}


def recorded_probes(out: Path) -> tuple[dict[str, RecordedProbe], str | None]:
    """Return the probes that were made, by what they depend on, and which of them is kept."""
    fields = set(Probe.__dataclass_fields__)
    try:
        content = json.loads((out / RECORD).read_text(encoding="utf-8"))
        known = {
            key: RecordedProbe(Probe(**{name: found[name] for name in fields}), found["settings"])
            for key, found in content["probes"].items()
            if found.keys() == {*fields, "settings"}
        }
        return known, content["winner"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, None


def record_probes(out: Path, probes: Mapping[str, RecordedProbe], winner: str | None) -> None:
    """Write down the probes that were made.

    Raises:
        OutputError: The folder cannot be written to.
    """
    found = {key: recorded.to_json() for key, recorded in probes.items()}
    content = {"winner": winner, "probes": found}
    with translated(printable(out, 200)):
        replace_text(out / RECORD, json.dumps(content, indent=2) + "\n")
