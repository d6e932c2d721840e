"""Verify a model that lies on disk against its base."""

from dataclasses import dataclass
from pathlib import Path

from hfgrow.ancestors import base_folder
from hfgrow.behaviour import TRANSFORMERS, measure
from hfgrow.checkpoint.compute.chunks import check_finite
from hfgrow.checkpoint.files import LocalFolder, hash_file
from hfgrow.checkpoint.read import read
from hfgrow.console import Progress, Silent, counting
from hfgrow.errors import ModelError, UsageError, VerificationError, printable
from hfgrow.extras import missing, require_for
from hfgrow.hub.client import HubClient
from hfgrow.lineage import Manifest, TrainingLink
from hfgrow.manifest import manifest_of
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.promise import Measured, check_promise
from hfgrow.provenance import Provenance, check_provenance
from hfgrow.rebuild import replay
from hfgrow.transformers_view import check_transformers_view


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of a verification: all of it held, else an error was raised.

    Attributes:
        manifest: The model's lineage.
        provenance: Every tensor compared with its source, byte for byte; None of a model that was
            trained, whose weight files are those that its training recorded.
        num_transformers_tensors: The tensors that transformers expects, and finds; None if it is
            not installed.
        measured: Logits and loss of base and grown model; None without transformers, or where
            there is too little memory.
    """

    manifest: Manifest
    provenance: Provenance | None
    num_transformers_tensors: int | None = None
    measured: Measured | None = None


def verify(
    folder: str | Path,
    client: HubClient | None = None,
    progress: Progress | None = None,
    *,
    base: str | None = None,
    text: str | None = None,
) -> Verified:
    """Verify a grown model against its base, or a trained one against its record.

    Args:
        folder: The grown model.
        client: For a base that lies on the Hub; None takes the default one.
        progress: Told how it goes on; None tells nobody.
        base: The base, if it is not where hfgrow.json says.
        text: The probe text; None takes the one shipped with hfgrow.

    Raises:
        VerificationError: A tensor differs from its source, a file from its record, transformers
            disagrees, or a growth that promises the same function does not keep it within the
            dtype's tolerance.
        ModelError: There is no lineage, or the base is not to be found.
        UsageError: Tensors have to be computed, and what computes them is not installed; or a base
            or a text is given for a trained model.
    """
    folder, client, progress = Path(folder), client or HubClient(), progress or Silent()
    manifest = manifest_of(LocalFolder(folder))
    if isinstance(manifest.link, TrainingLink):
        if base is not None or text is not None:
            raise UsageError("a trained model is compared with its record, not with a base or text")
        return _verify_trained(folder, manifest, progress)
    growth = manifest.growth
    found = base_folder(folder, manifest, base, client, progress)
    plan = replay(read(LocalFolder(found)), growth, folder)
    require_for(plan)
    with counting(progress, "Comparing bytes", plan.nbytes) as advance:
        provenance = check_provenance(folder, plan, advance=advance)
    absent = missing(*TRANSFORMERS)
    if absent:
        progress.say(f"Note: transformers' view and the logits need {' and '.join(absent)}")
        return Verified(manifest, provenance)
    num_tensors = check_transformers_view(folder, found)
    measured = measure(found, folder, progress, text)
    if measured is not None and plan.preserves_function:
        check_promise(measured)
    return Verified(manifest, provenance, num_tensors, measured)


def _verify_trained(folder: Path, manifest: Manifest, progress: Progress) -> Verified:
    found = read(LocalFolder(folder)).files
    recorded = manifest.link.result.files
    if found.keys() != recorded.keys():
        odd = sorted(found.keys() ^ recorded.keys())[0]
        raise VerificationError(f"{printable(odd)} is not among the files that both have")
    for name, file in recorded.items():
        digest = hash_file(folder / name)
        if file.sha256 is None or digest != file.sha256:
            raise VerificationError(
                f"{printable(name)} has sha256 {digest}, its training recorded {file.sha256}",
                hint="it was changed since; what it came from is still recorded",
            )
    if absent := missing(*TRANSFORMERS):
        progress.say(f"Note: transformers' view needs {' and '.join(absent)}")
        return Verified(manifest, None)
    return Verified(manifest, None, check_transformers_view(folder))


def is_finite(base: GrowthPlan, progress: Progress, allow_nonfinite: bool) -> bool:
    """Read every weight of a base on this machine and say whether all are numbers.

    Args:
        base: Its plan.
        progress: Told how it goes on, and what was found.
        allow_nonfinite: Whether it may hold others.

    Raises:
        ModelError: It holds others, and may not.
    """
    try:
        with counting(progress, "Reading the base", base.nbytes) as advance:
            check_finite(LocalFolder(Path(base.folder)), base, advance=advance)
    except ModelError as error:
        if not allow_nonfinite:
            raise
        progress.say(f"Note: {error}; logits are not measured")
        return False
    return True
