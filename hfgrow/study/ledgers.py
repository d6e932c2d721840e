"""What the ledger of a finished run says that it has cost, against what was planned."""

from dataclasses import dataclass

from hfgrow.errors import GrowthError
from hfgrow.lineage.ledger import ledger
from hfgrow.lineage.read import read_manifest
from hfgrow.study.accounting import exact_total, total
from hfgrow.study.job import StudyRun
from hfgrow.train.run_folder import RunFolder

# How far the ledger may be from what was planned: roundings of decimals.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a ledger says.

    Attributes:
        device_seconds: What all training took, the base's included; None if it does not say.
        fault: Where it does not say what was planned; empty if it does.
    """

    device_seconds: float | None
    fault: str


def recorded(job: StudyRun) -> Recorded:
    """Read the ledger of a finished run."""
    try:
        manifest = read_manifest(RunFolder(job.folder).final)
    except GrowthError as error:
        return Recorded(None, str(error))
    if manifest is None:
        return Recorded(None, "its model has no ledger")
    found = ledger(manifest)
    planned = (("", total(job.costs)), (" exact", exact_total(job.costs)))
    read = (found.total.flops, found.total.exact_flops)
    faults = [
        f"its ledger has {flops}{what} FLOPs instead of {wanted}"
        for (what, wanted), flops in zip(planned, read, strict=True)
        if flops is None or abs(flops - wanted) > _TOLERANCE * wanted
    ]
    return Recorded(found.recorded.device_seconds, "; ".join(faults))
