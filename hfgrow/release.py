"""Push a grown model: the files that hfgrow wrote, and no others."""

from pathlib import Path

from hfgrow.card import CARD, PICTURE, card_files
from hfgrow.checkpoint.files import hash_file
from hfgrow.checkpoint.read import INDEX
from hfgrow.checkpoint.sidefiles import is_side_file
from hfgrow.checkpoint.write import write_text
from hfgrow.errors import HubRefusedError, ModelError, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.preflight import PushTarget
from hfgrow.hub.push import Pushed, push
from hfgrow.hub.resolve import ModelRef
from hfgrow.lineage import MANIFEST, Manifest, WeightFile
from hfgrow.manifest import read_manifest
from hfgrow.progress import Progress, counting
from hfgrow.source import locate


def push_folder(folder: Path, target: PushTarget, client: HubClient, progress: Progress) -> Pushed:
    """Push a grown model in one commit; its lineage is completed with the sha256 of its weights.

    Raises:
        ModelError: The folder was not made by hfgrow.
        GrowthError: The Hub refuses, does not answer, or changed meanwhile.
    """
    manifest = require_manifest(folder)
    complete = sealed(folder, manifest, progress)
    if complete != manifest:
        for name, text in {
            MANIFEST: complete.to_json(),
            **card_files(complete, target.repo_id),
        }.items():
            write_text(folder / name, text)
    name = manifest.link.result.name
    return push(folder, own_files(folder, manifest), target, client, message=f"Add {name}")


def visible_as(
    name: str, manifest: Manifest | None, client: HubClient, progress: Progress
) -> ModelRef:
    """Return a base that lies on this machine, with the visibility that its ancestors ask for.

    A model grown from a private or gated one is private by default, however many growths lie
    between; an ancestor that this token does not see counts as private.
    """
    private = gated = False
    for link in manifest.chain if manifest else ():
        if link.base.repo_id is None:
            continue
        try:
            ref = locate(link.base.repo_id, link.base.revision, client, progress)
        except HubRefusedError:
            private = True
        else:
            private, gated = private or ref.private, gated or ref.gated
    return ModelRef(name, private=private, gated=gated)


def sealed(folder: Path, manifest: Manifest, progress: Progress) -> Manifest:
    """Return the manifest with the sha256 of every weight file of the model itself."""
    files = dict(manifest.link.result.files)
    for name, file in files.items():
        if file.sha256 is None:
            with counting(progress, f"Hashing {name}", file.nbytes) as advance:
                digest = hash_file(folder / name, advance=advance)
            files[name] = WeightFile(file.nbytes, digest)
    return manifest.with_result_files(files)


def require_manifest(folder: Path) -> Manifest:
    """Return the lineage of a folder that must have one.

    Raises:
        ModelError: The folder was not made by hfgrow.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise ModelError(
            f"{printable(folder, 200)} has no {MANIFEST}: it was not grown by hfgrow",
            hint="grow a model first: hfgrow stack MODEL --g 4",
        )
    return manifest


def own_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return the names of a grown model's files, from its lineage and the allow-list."""
    weights = list(manifest.link.result.files)
    index = [INDEX] if len(weights) > 1 else []
    side_files = [path.name for path in folder.iterdir() if is_side_file(path.name)]
    return sorted([*weights, *index, "config.json", MANIFEST, CARD, PICTURE, *side_files])
