"""Read hfgrow.json, which may come from a stranger: every value has the shape it must have.

What passes here is written into cards and commands, replayed by `reproduce` and pushed by name, so
nothing passes that could be code, markup, a path or a number without bound.

Read the record of a training out of hfgrow.json, which may come from a stranger.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from math import isclose
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import MANIFEST, Files, LocalFolder, refuse_run
from hfgrow.checkpoint.strict import is_int, read_json_object
from hfgrow.errors import ModelError, growth, printable
from hfgrow.lineage.card_metadata import checked_metadata
from hfgrow.lineage.fields import (
    checked,
    damaged,
    is_label,
    is_phrase,
    is_word,
    list_in,
    number,
    object_of,
    optional,
    real,
    shaped,
    words,
)
from hfgrow.lineage.manifest import (
    GROWTH,
    SCHEMA,
    TRAINING,
    WIDTHS,
    Link,
    Manifest,
    Model,
    TrainingLink,
    WeightFile,
)
from hfgrow.lineage.records import (
    DATASET,
    DECLARED,
    MEASURED,
    Compute,
    Evaluated,
    TrainingSource,
    benchmark_of,
)
from hfgrow.plan.depth import MAX_LAYERS
from hfgrow.plan.operators import MAX_STEPS
from hfgrow.plan.operators.operator import MAX_SEED, is_argument
from hfgrow.plan.plan import GrowthStep, LayerSource
from hfgrow.plan.promise import TOLERANCES, Measured
from hfgrow.plan.tensors import CONFIG_DTYPES

_MAX_LINKS = 1000
_MAX_BENCHMARKS = 1000
_REPO = re.compile(r"\w[\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WEIGHTS = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)


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
        raise ModelError(f"there is no folder {files.label}")
    if isinstance(files, LocalFolder):
        refuse_run(files.path)
    if MANIFEST not in files.names():
        raise ModelError(
            f"{files.label} has no {MANIFEST}: it was not grown by hfgrow",
            hint=f"grow a model first: {growth('stack', g=4)}",
        )
    return parse_manifest(read_json_object(files, MANIFEST))


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
    chain = tuple(_link(link) for link in list_in(content, "chain", most=_MAX_LINKS))
    root_compute = content.get("root_compute")
    for link, following in pairwise(chain):
        if not _same_sizes(link.result, following.base):
            raise damaged("chain", "its links do not fit together")
    measured = list_in({"benchmarks": [], **content}, "benchmarks", least=0, most=_MAX_BENCHMARKS)
    return Manifest(
        chain,
        None if root_compute is None else compute_of(root_compute),
        tuple(benchmark_of(item) for item in measured),
    )


def _same_sizes(one: Model, other: Model) -> bool:
    return one.num_hidden_layers == other.num_hidden_layers and all(
        width == other.widths[key] or None in (width, other.widths[key])
        for key, width in one.widths.items()
    )


def _link(value: Any) -> Link | TrainingLink:
    content = object_of(value, "chain")
    match content.get("kind"):
        case kind if kind == GROWTH:
            return _growth(content)
        case kind if kind == TRAINING:
            return _training(content)
    raise ModelError(
        f"{MANIFEST} has a link of the kind {printable(content.get('kind'))}, unknown here",
        hint="upgrade hfgrow",
    )


def _growth(content: Mapping[str, Any]) -> Link:
    measured, dtype = content.get("measured"), content.get("dtype")
    if dtype is not None and (not isinstance(dtype, str) or dtype not in CONFIG_DTYPES):
        raise damaged("dtype", dtype)
    link = Link(
        base=_model(content.get("base"), "base"),
        steps=tuple(_step(step) for step in list_in(content, "steps", most=MAX_STEPS)),
        dtype=dtype,
        max_shard_nbytes=number(content, "max_shard_nbytes", least=1),
        result=_model(content.get("result"), "result"),
        versions=words(content.get("versions"), "versions"),
        measured=None if measured is None else _measured(object_of(measured, "measured")),
        card=checked_metadata(object_of(content.get("card", {}), "card")),
        num_computed=number({"num_computed": 0, **content}, "num_computed"),
    )
    depth = link.base.num_hidden_layers
    for step in link.steps:
        if any(source.layer >= depth for source in step.layer_map):
            raise damaged("layer_map", f"{step.operator} takes layers that its base lacks")
        depth = len(step.layer_map)
    if depth != link.result.num_hidden_layers:
        raise damaged("layer_map", f"it gives {depth} layers")
    return link


def _training(content: Mapping[str, Any]) -> TrainingLink:
    link = TrainingLink(
        base=_model(content.get("base"), "base"),
        result=_model(content.get("result"), "result"),
        versions=words(content.get("versions"), "versions"),
        card=checked_metadata(object_of(content.get("card", {}), "card")),
        **training_fields(content),
    )
    one, other = link.base, link.result
    if not _same_sizes(one, other) or one.num_parameters != other.num_parameters:
        raise damaged("result", "training changes no size")
    return link


def _model(value: Any, where: str) -> Model:
    content = object_of(value, where)
    files = object_of(content.get("files"), f"files of {where}")
    if not files:
        raise damaged(f"files of {where}", "there are none")
    return Model(
        name=checked(content, "name", lambda name: isinstance(name, str) and 0 < len(name) < 256),
        repo_id=optional(content, "repo_id", _REPO),
        revision=optional(content, "revision", _REVISION),
        num_hidden_layers=number(content, "num_hidden_layers", least=1, most=MAX_LAYERS),
        num_parameters=number(content, "num_parameters"),
        num_non_embedding_parameters=number(content, "num_non_embedding_parameters"),
        files={name: _weight_file(name, file) for name, file in files.items()},
        **{key: number(content, key, least=1) for key in WIDTHS if content.get(key) is not None},
    )


def _weight_file(name: str, value: Any) -> WeightFile:
    if not _WEIGHTS.fullmatch(name):
        raise damaged("files", name)
    content = object_of(value, name)
    return WeightFile(number(content, "nbytes"), optional(content, "sha256", _SHA256))


def _step(value: Any) -> GrowthStep:
    content = object_of(value, "steps")
    arguments = object_of(content.get("arguments"), "arguments")
    for key, argument in arguments.items():
        if not is_word(key) or not is_argument(argument):
            raise damaged("arguments", f"{key}: {argument}")
    return GrowthStep(
        operator=checked(content, "operator", is_word),
        arguments=arguments,
        layer_map=tuple(
            _layer_source(item) for item in list_in(content, "layer_map", most=MAX_LAYERS)
        ),
        preserves_function=checked(content, "preserves_function", lambda v: isinstance(v, bool)),
    )


def _layer_source(item: Any) -> LayerSource:
    pair: Any = item if isinstance(item, list) and len(item) == 2 else (item, "copy")
    layer, mode = pair
    if not is_int(layer) or not 0 <= layer < MAX_LAYERS or not is_word(mode):
        raise damaged("layer_map", item)
    return LayerSource(layer, mode)


def _measured(content: Mapping[str, Any]) -> Measured:
    return Measured(
        text=checked(content, "text", lambda v: isinstance(v, str) and len(v) < 80),
        num_tokens=number(content, "num_tokens"),
        dtype=checked(content, "dtype", lambda v: isinstance(v, str) and v in TOLERANCES),
        base_loss=real(content, "base_loss"),
        grown_loss=real(content, "grown_loss"),
        max_abs_dlogit=real(content, "max_abs_dlogit"),
        mean_abs_dlogit=real(content, "mean_abs_dlogit"),
        argmax_agreement=real(content, "argmax_agreement", most=1),
        **{
            key: real(content, key)
            for key in ("mean_kl", "max_abs_logit")
            if content.get(key) is not None
        },
    )


_MAX_STAGES = 1000
_MAX_SOURCES = 1000
_MAX_EVALUATIONS = 1000
_MAX_SETTINGS = 100
_MAX_DEVICES = 1 << 24
_SPLIT = re.compile(r"[\w.-]{1,100}(\[(\d{1,3}%)?:(\d{1,3}%)?\])?", re.ASCII)


def training_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a training beside its models, by the names of `TrainingLink`.

    Raises:
        ModelError: One of them is missing, of the wrong kind, or out of bounds.
    """
    evaluations = list_in(content, "evaluations", least=0, most=_MAX_EVALUATIONS)
    return {
        "stage": number(content, "stage", most=_MAX_STAGES),
        "data": tuple(
            _training_source(item) for item in list_in(content, "data", most=_MAX_SOURCES)
        ),
        "optimizer": checked(content, "optimizer", is_phrase),
        "learning_rate": real(content, "learning_rate"),
        "schedule": checked(content, "schedule", is_phrase),
        "batch_tokens": number(content, "batch_tokens", least=1),
        "sequence_length": number(content, "sequence_length", least=1),
        "precision": checked(content, "precision", is_word),
        "seed": number(content, "seed", most=MAX_SEED),
        "trainable": checked(content, "trainable", is_phrase),
        "settings": _settings(content.get("settings", {})),
        "compute": compute_of(content.get("compute")),
        "evaluations": tuple(_evaluated(item) for item in evaluations),
    }


def compute_of(value: Any) -> Compute:
    """Return what training cost.

    Raises:
        ModelError: A field is missing, of the wrong kind, or out of bounds.
    """
    content = object_of(value, "compute")
    compute = Compute(
        num_parameters=number(content, "num_parameters", least=1),
        num_non_embedding_parameters=number(content, "num_non_embedding_parameters"),
        tokens=number(content, "tokens"),
        flops=real(content, "flops"),
        exact_flops=_real_or_none(content, "exact_flops"),
        seconds=_real_or_none(content, "seconds"),
        devices=_number_or_none(content, "devices", least=1, most=_MAX_DEVICES),
        device=None if content.get("device") is None else checked(content, "device", is_phrase),
        source=checked(content, "source", lambda v: v in (MEASURED, DECLARED)),
    )
    if not isclose(compute.flops, 6 * compute.num_parameters * compute.tokens, rel_tol=1e-6):
        raise damaged("flops", f"{compute.flops:g}, which is not 6 for each parameter and token")
    return compute


def _settings(value: Any) -> dict[str, bool | float | str]:
    content = object_of(value, "settings")
    if len(content) > _MAX_SETTINGS:
        raise damaged("settings", f"{len(content)} of them")
    for key, setting in content.items():
        if not is_word(key) or not is_argument(setting):
            raise damaged("settings", f"{key}: {setting}")
    return content


def _training_source(value: Any) -> TrainingSource:
    content = object_of(value, "data")
    kind = checked(content, "kind", lambda v: v in ("dataset", "local"))
    dataset = optional(content, "dataset", DATASET)
    if dataset is not None and kind == "local":
        raise damaged("dataset", f"{dataset}, although the text is local")
    label = checked(content, "label", is_label)
    if kind == "local" and "/" in label:
        raise damaged("label", f"{label}, a path of somebody's machine")
    return TrainingSource(
        label=label,
        kind=kind,
        split=shaped(content, "split", _SPLIT),
        tokens=number(content, "tokens"),
        weight=real(content, "weight"),
        fingerprint=shaped(content, "fingerprint", _SHA256),
        dataset=dataset,
    )


def _evaluated(value: Any) -> Evaluated:
    content = object_of(value, "evaluations")
    return Evaluated(
        label=checked(content, "label", is_label),
        num_tokens=number(content, "num_tokens", least=1),
        before=real(content, "before"),
        after=real(content, "after"),
        bits_per_byte_before=real(content, "bits_per_byte_before"),
        bits_per_byte_after=real(content, "bits_per_byte_after"),
        before_growth=_real_or_none(content, "before_growth"),
        recovered_tokens=_number_or_none(content, "recovered_tokens"),
    )


def _real_or_none(content: Mapping[str, Any], key: str) -> float | None:
    return None if content.get(key) is None else real(content, key)


def _number_or_none(content: Mapping[str, Any], key: str, **bounds: int) -> int | None:
    return None if content.get(key) is None else number(content, key, **bounds)
