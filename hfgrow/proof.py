"""Prove a model that lies on disk: verify it against its base, or rebuild it from its root."""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hfgrow.behaviour import TRANSFORMERS, check_transformers_view, measure
from hfgrow.checkpoint.convert import with_dtype
from hfgrow.checkpoint.files import LocalFolder, hash_file, open_regular
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import check_target
from hfgrow.checkpoint.write import config_with, write
from hfgrow.errors import ModelError, UsageError, VerificationError, printable
from hfgrow.extras import require
from hfgrow.hub.client import HubClient
from hfgrow.lineage import LOCAL_BASE, Link, Manifest, Measured, Model, config_record
from hfgrow.operators import OPERATORS
from hfgrow.plan import GrowthPlan
from hfgrow.progress import Progress, Silent, counting
from hfgrow.provenance import Provenance, check_provenance
from hfgrow.release import require_manifest
from hfgrow.source import local_folder, locate

_MAX_PATH_NBYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of a verification: all of it held, else an error was raised.

    Attributes:
        manifest: The model's lineage.
        provenance: Every tensor compared with its source, byte for byte.
        num_transformers_tensors: The tensors that transformers expects, and finds.
        measured: Logits and loss of base and grown model; None if there is too little memory.
    """

    manifest: Manifest
    provenance: Provenance
    num_transformers_tensors: int
    measured: Measured | None


def verify(
    folder: Path,
    client: HubClient | None = None,
    progress: Progress | None = None,
    *,
    base: str | None = None,
    text: str | None = None,
) -> Verified:
    """Verify a grown model against its base.

    Args:
        folder: The grown model.
        client: For a base that lies on the Hub; None takes the default one.
        progress: Told how it goes on; None tells nobody.
        base: The base, if it is not where hfgrow.json says.
        text: The probe text; None takes the one shipped with hfgrow.

    Raises:
        VerificationError: A tensor differs from its source, or transformers disagrees.
        ModelError: There is no lineage, or the base is not to be found.
    """
    client, progress = client or HubClient(), progress or Silent()
    require("verify", *TRANSFORMERS)
    manifest = require_manifest(folder)
    base_folder = _base_folder(folder, manifest.link.base, base, client, progress)
    plan = replay(read(LocalFolder(base_folder)), manifest.link)
    with counting(progress, "Comparing bytes", plan.nbytes) as advance:
        provenance = check_provenance(folder, plan, advance=advance)
    num_tensors = check_transformers_view(folder)
    measured = measure(base_folder, folder, progress, text)
    return Verified(manifest, provenance, num_tensors, measured)


def reproduce(
    manifest: Manifest,
    client: HubClient | None = None,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    root: str | None = None,
    out: Path | None = None,
) -> dict[str, str]:
    """Grow a model again, from the root of its chain, and compare the sha256 of every weight file.

    Args:
        manifest: The model's lineage.
        client: For a root that lies on the Hub; None takes the default one.
        progress: Told how it goes on; None tells nobody.
        folder: The model itself, if it lies here; hashed where the lineage has no sha256.
        root: The root, if it is not where the lineage says.
        out: Where to keep the rebuilt model; None keeps nothing.

    Returns:
        Weight file -> the sha256 that came out equal.

    Raises:
        VerificationError: A file came out different.
        ModelError: The root is not to be found, or there is nothing to compare with.
    """
    client, progress = client or HubClient(), progress or Silent()
    if out is not None:
        check_target(out, folder, overwrite=False)
    current = _base_folder(folder, manifest.root, root, client, progress, root=True)
    recorded = _recorded_sha256(manifest, folder)
    parent = Path.cwd() if out is None else out.absolute().parent
    with tempfile.TemporaryDirectory(prefix=".hfgrow-reproduce-", dir=parent) as scratch:
        for i, link in enumerate(manifest.chain):
            last = i + 1 == len(manifest.chain)
            target = out if last and out is not None else Path(scratch, str(i))
            _write_again(current, link, target, progress)
            current = target
        digests = {}
        for name, wanted in recorded.items():
            digests[name] = hash_file(current / name) if (current / name).is_file() else "missing"
            if digests[name] != wanted:
                raise VerificationError(
                    f"{printable(name)} came out with sha256 {digests[name]}, recorded is {wanted}",
                    hint="the root is another model, or the weights were changed after growth",
                )
    return digests


def _recorded_sha256(manifest: Manifest, folder: Path | None) -> dict[str, str]:
    recorded = {}
    for name, file in manifest.link.result.files.items():
        if file.sha256 is not None:
            recorded[name] = file.sha256
        elif folder is not None:
            recorded[name] = hash_file(folder / name)
        else:
            raise ModelError(f"hfgrow.json records no sha256 of {printable(name)} to compare with")
    return recorded


def replay(base: GrowthPlan, link: Link) -> GrowthPlan:
    """Apply the recorded steps of a link to its base.

    Raises:
        ModelError: A recorded operator is unknown, or gives another layer map than recorded.
    """
    plan = base
    for step in link.steps:
        operator = OPERATORS.get(step.operator)
        if operator is None:
            raise ModelError(
                f"hfgrow.json names an operator unknown to this hfgrow: {printable(step.operator)}",
                hint="upgrade hfgrow",
            )
        try:
            plan = operator.function(plan, **step.arguments)
        except (UsageError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(
                f"hfgrow.json: {step.operator} cannot be run again: {printable(error, 200)}"
            ) from error
        if plan.steps[-1].layer_map != step.layer_map:
            raise ModelError(
                f"{step.operator} gives another layer map than hfgrow.json records",
                hint="the base is another model, or hfgrow.json was edited",
            )
    return with_dtype(plan, link.dtype)


def _write_again(base: Path, link: Link, target: Path, progress: Progress) -> None:
    plan = replay(read(LocalFolder(base)), link)
    plan = replace(plan, config=config_with(plan.config, config_record(link)))
    layout = lay_out(plan, link.max_shard_nbytes)
    with counting(progress, f"Rebuilding {link.result.name}", layout.nbytes) as advance:
        write(plan, layout, target, finish=lambda staging: {}, advance=advance)


def _base_folder(
    folder: Path | None,
    base: Model,
    given: str | None,
    client: HubClient,
    progress: Progress,
    *,
    root: bool = False,
) -> Path:
    """Find the base: where the user says, on the Hub, or where it lay when the model was grown."""
    if given is None and base.repo_id is not None:
        return local_folder(locate(base.repo_id, base.revision, client, progress), client, progress)
    noted = None if given is not None or folder is None else _noted_base(folder)
    if noted is not None:
        return _first_of_chain(noted) if root else noted
    if given is None and base.name == "demo":
        given = "demo"
    if given is None:
        word = "root" if root else "base"
        raise ModelError(
            f"the {word} {printable(base.name)} is not to be found on this machine",
            hint=f"name it: --{word} MODEL",
        )
    return local_folder(locate(given, None, client, progress), client, progress)


def _first_of_chain(folder: Path) -> Path:
    """Follow the notes of where each base lay, down to one that has no base itself."""
    seen = set()
    while (noted := _noted_base(folder)) is not None and folder not in seen:
        seen.add(folder)
        folder = noted
    return folder


def _noted_base(folder: Path) -> Path | None:
    """Return the folder that a grown model's base lay in, if it still does."""
    try:
        fd = open_regular(folder / LOCAL_BASE)
    except ModelError:
        return None
    with os.fdopen(fd, "rb") as file:
        path = Path(os.fsdecode(file.read(_MAX_PATH_NBYTES).rstrip(b"\n")))
    try:
        return path if path.is_absolute() and path.is_dir() else None
    except (OSError, ValueError):
        return None
