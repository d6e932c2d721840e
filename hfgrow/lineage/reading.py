"""Read hfgrow.json, which may come from a stranger: every field as declared, all of it checked."""

from collections.abc import Mapping
from itertools import pairwise
from math import isclose
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import CONFIG, MANIFEST, Files, LocalFolder, refuse_run
from hfgrow.checkpoint.strict import read_json_object
from hfgrow.errors import ModelError, command, growth, printable
from hfgrow.lineage.kinds import OBJECT, FieldKind, damaged, items, record
from hfgrow.lineage.manifest import SCHEMA, Link, Manifest, Model, TrainingLink
from hfgrow.lineage.records import Benchmark, Compute, Elsewhere, TrainingSource
from hfgrow.plan.plan import FROM_NONE

_MAX_LINKS = 1000
_MAX_BENCHMARKS = 1000


def read_manifest(folder: str | Path) -> Manifest | None:
    """Read hfgrow.json of a model folder.

    Returns:
        The manifest, or None if the folder has none.

    Raises:
        ModelError: The file is there and is no manifest of a version this hfgrow reads.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return None
    return parse_manifest(read_json_object(LocalFolder(folder), MANIFEST))


def manifest_of(files: Files) -> Manifest:
    """Read hfgrow.json of a model that must have one.

    Raises:
        ModelError: There is none, or it is damaged.
        UsageError: This is the folder of a run.
    """
    if files.folder and not Path(files.folder).is_dir():
        raise ModelError(
            f"there is no folder {files.label}", hint=f"name that of a model with {MANIFEST}"
        )
    if isinstance(files, LocalFolder):
        refuse_run(files.path)
    if MANIFEST not in files.names():
        if how := told_by_config(_config_of(files)):
            raise ModelError(
                f"{files.label} has no {MANIFEST}, but its config.json says that hfgrow grew or "
                f"trained it, {how}: another program has saved it since, and trained it perhaps",
                hint=f"copy {MANIFEST} of the grown model into it, then "
                + command(f"card {files.label}", trained_elsewhere="NOTE")
                + " records what was done since",
            )
        raise ModelError(
            f"{files.label} has no {MANIFEST}: it was not grown by hfgrow",
            hint=f"grow a model first: {growth('stack', g=4)}",
        )
    return parse_manifest(read_json_object(files, MANIFEST))


def _config_of(files: Files) -> Mapping[str, Any]:
    try:
        return read_json_object(files, CONFIG)
    except ModelError:
        return {}


def told_by_config(config: Mapping[str, Any]) -> str:
    """Return what the small record in a config.json says: `by stack from org/base`, or nothing.

    Other programs keep it when they save a model that was grown, and not hfgrow.json.

    Args:
        config: The content of config.json.
    """
    told = config.get("hfgrow")
    if not isinstance(told, dict):
        return ""
    operators = told.get("operators")
    listed = [str(name) for name in operators] if isinstance(operators, list) else []
    how = f"by {printable(', '.join(listed))} " if listed else ""
    return f"{how}from {printable(told.get('base', 'a base without a name'))}"


def parse_manifest(content: Mapping[str, Any]) -> Manifest:
    """Make a manifest from the JSON of hfgrow.json.

    Raises:
        ModelError: A field is missing, of the wrong kind, or out of bounds, or the links do not
            fit together.
    """
    if content.get("schema") != SCHEMA:
        raise ModelError(
            f"{MANIFEST} has schema {printable(content.get('schema'))}, this hfgrow reads {SCHEMA}",
            hint="upgrade hfgrow",
        )
    root_compute = content.get("root_compute")
    manifest = Manifest(
        _CHAIN.read(content.get("chain"), "chain"),
        None if root_compute is None else record(Compute).read(root_compute, "compute"),
        _BENCHMARKS.read(content.get("benchmarks", []), "benchmarks"),
        _ELSEWHERE.read(content.get("elsewhere", []), "elsewhere"),
    )
    _check(manifest)
    return manifest


def _link(value: Any, where: str) -> Link | TrainingLink:
    kind = OBJECT.read(value, where).get("kind")
    for one in (Link, TrainingLink):
        if kind == one.kind:
            link: Link | TrainingLink = record(one).read(value, where)
            return link
    raise ModelError(
        f"{MANIFEST} has a link of the kind {printable(kind)}, unknown here", hint="upgrade hfgrow"
    )


_CHAIN = items(FieldKind(_link), _MAX_LINKS)
_ELSEWHERE = items(record(Elsewhere), _MAX_LINKS, least=0)
_BENCHMARKS = items(record(Benchmark), _MAX_BENCHMARKS, least=0)


def _check(manifest: Manifest) -> None:
    """Refuse fields that contradict each other, whatever each says by itself."""
    for link in manifest.chain:
        _check_growth(link) if isinstance(link, Link) else _check_training(link)
    if manifest.root_compute is not None:
        _check_compute(manifest.root_compute)
    places = [one.after for one in manifest.elsewhere]
    if places != sorted(places) or any(place > len(manifest.chain) for place in places):
        raise damaged("elsewhere", "a training stands where the chain has no model")
    for link, following in pairwise(manifest.chain):
        if not _same_sizes(link.result, following.base):
            raise damaged("chain", "its links do not fit together")


def _check_growth(link: Link) -> None:
    depth = link.base.num_hidden_layers
    for step in link.steps:
        known = (source for source in step.layer_map if depth or source != FROM_NONE)
        if any(source.layer >= depth for source in known):
            raise damaged("layer_map", f"{step.operator} takes layers that its base lacks")
        depth = len(step.layer_map)
    if depth != link.result.num_hidden_layers:
        raise damaged("layer_map", f"it gives {depth} layers")
    for module, layers in (link.zero_rows or {}).items():
        if max(layers) >= depth:
            raise damaged("zero_rows", f"{module} of layer {max(layers)}")


def _check_training(link: TrainingLink) -> None:
    for source in link.data:
        _check_source(source)
    _check_compute(link.compute)
    one, other = link.base, link.result
    if not _same_sizes(one, other) or one.num_parameters != other.num_parameters:
        raise damaged("result", "training changes no size")


def _check_source(source: TrainingSource) -> None:
    if source.kind == "local" and source.dataset is not None:
        raise damaged("dataset", f"{source.dataset}, although the text is local")
    if source.kind == "local" and "/" in source.label:
        raise damaged("label", f"{source.label}, a path of somebody's machine")


def _check_compute(compute: Compute) -> None:
    passed = compute.num_active_parameters or compute.num_parameters
    if passed > compute.num_parameters:
        raise damaged("num_active_parameters", f"{passed}, more than there are")
    if not isclose(compute.flops, 6 * passed * compute.tokens, rel_tol=1e-6):
        raise damaged("flops", f"{compute.flops:g}, which is not 6 for each parameter and token")


def _same_sizes(one: Model, other: Model) -> bool:
    return one.num_hidden_layers == other.num_hidden_layers and all(
        width == other.widths[key] or None in (width, other.widths[key])
        for key, width in one.widths.items()
    )
