"""Read hfgrow.json, which may come from a stranger: every value has the shape it must have.

What passes here is written into cards and commands, replayed by `reproduce` and pushed by name, so
nothing passes that could be code, markup, a path or a number without bound.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from hfgrow.benchmark import benchmark_of
from hfgrow.checkpoint.files import MANIFEST, Files, LocalFolder, refuse_run
from hfgrow.checkpoint.strict import is_int, read_json_object
from hfgrow.errors import ModelError, printable
from hfgrow.fields import (
    checked,
    damaged,
    is_argument,
    is_word,
    list_in,
    number,
    object_of,
    optional,
    real,
    words,
)
from hfgrow.inherited import checked_metadata
from hfgrow.lineage import (
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
from hfgrow.operators import MAX_STEPS
from hfgrow.plan.depth import MAX_LAYERS
from hfgrow.plan.plan import GrowthStep, LayerSource
from hfgrow.plan.promise import TOLERANCES, Measured
from hfgrow.plan.tensors import CONFIG_DTYPES
from hfgrow.trained_fields import compute_of, training_fields

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
            hint="grow a model first: hfgrow stack MODEL --g 4",
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
        layer_map=tuple(_source(item) for item in list_in(content, "layer_map", most=MAX_LAYERS)),
        preserves_function=checked(content, "preserves_function", lambda v: isinstance(v, bool)),
    )


def _source(item: Any) -> LayerSource:
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
