"""Where the runs of a report ran: commands and machines, and which runs were theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hfgrow.study.design import Design


@dataclass(frozen=True, slots=True)
class Ran:
    """A command on a machine.

    Attributes:
        command: What was typed.
        machine: The machine, as `Machine.to_json` has it.
        runs: The names of the runs that ran there, or did a part of it.
    """

    command: str
    machine: Mapping[str, Any]
    runs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


def where_ran(design: Design, places: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Ran]:
    """Return the commands and machines that runs ran by, in the order of the runs.

    Args:
        design: The runs.
        places: Where each ran, as the folder of the study has it.
    """
    found: list[tuple[Mapping[str, Any], list[str]]] = []
    for job in design.jobs:
        for place in places.get(job.name, ()):
            names = next((names for known, names in found if known == place), None)
            if names is None:
                found.append((place, [job.name]))
            elif job.name not in names:
                names.append(job.name)
    return [Ran(place["command"], place["machine"], tuple(names)) for place, names in found]
