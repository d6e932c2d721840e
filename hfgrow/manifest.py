"""Read hfgrow.json, which may come from a stranger: every value has the shape it must have.

What passes here is written into cards and commands, replayed by `reproduce` and pushed by name, so
nothing passes that could be code, markup, a path or a number without bound.
"""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.config import CONFIG_DTYPES
from hfgrow.checkpoint.files import Files, LocalFolder
from hfgrow.checkpoint.strictjson import is_int, read_json_object
from hfgrow.depth import MAX_LAYERS
from hfgrow.errors import ModelError, printable
from hfgrow.inherited import checked_metadata
from hfgrow.lineage import (
    GROWTH,
    SCHEMA,
    Link,
    Manifest,
    Measured,
    Model,
    WeightFile,
)
from hfgrow.names import MANIFEST
from hfgrow.plan import GrowthStep, LayerSource

_MAX_LINKS = 1000
_MAX_NUMBER = 1 << 62
_WORD = re.compile(r"[\w.+-]{1,80}", re.ASCII)
_ARGUMENT = re.compile(r"[\w.+:*\[\]-]{1,4000}", re.ASCII)
_REPO = re.compile(r"\w[\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WEIGHTS = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)


def read_manifest(folder: Path) -> Manifest | None:
    """Read hfgrow.json of a model folder.

    Returns:
        The manifest, or None if the folder has none.

    Raises:
        ModelError: The file is there and is no manifest of a version this hfgrow reads.
    """
    if not (folder / MANIFEST).is_file():
        return None
    return parse_manifest(read_json_object(LocalFolder(folder), MANIFEST))


def manifest_of(files: Files) -> Manifest:
    """Read hfgrow.json of a model that must have one.

    Raises:
        ModelError: There is none, or it is damaged.
    """
    if files.folder and not Path(files.folder).is_dir():
        raise ModelError(f"there is no folder {files.label}")
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
    chain = tuple(_link(link) for link in _list(content, "chain", most=_MAX_LINKS))
    for link, following in pairwise(chain):
        if link.result.num_hidden_layers != following.base.num_hidden_layers:
            raise _damaged("chain", "its links do not fit together")
    return Manifest(chain)


def _link(value: Any) -> Link:
    content = _object(value, "chain")
    if content.get("kind") != GROWTH:
        raise ModelError(
            f"{MANIFEST} has a link of the kind {printable(content.get('kind'))}, unknown here",
            hint="upgrade hfgrow",
        )
    measured, dtype = content.get("measured"), content.get("dtype")
    if dtype is not None and (not isinstance(dtype, str) or dtype not in CONFIG_DTYPES):
        raise _damaged("dtype", dtype)
    link = Link(
        base=_model(content.get("base"), "base"),
        steps=tuple(_step(step) for step in _list(content, "steps", most=_MAX_LINKS)),
        dtype=dtype,
        max_shard_nbytes=_number(content, "max_shard_nbytes", least=1),
        result=_model(content.get("result"), "result"),
        versions=_words(content.get("versions"), "versions"),
        measured=None if measured is None else _measured(_object(measured, "measured")),
        card=checked_metadata(_object(content.get("card", {}), "card")),
    )
    depth = link.base.num_hidden_layers
    for step in link.steps:
        if any(source.layer >= depth for source in step.layer_map):
            raise _damaged("layer_map", f"{step.operator} takes layers that its base lacks")
        depth = len(step.layer_map)
    if depth != link.result.num_hidden_layers:
        raise _damaged("layer_map", f"it gives {depth} layers")
    return link


def _model(value: Any, where: str) -> Model:
    content = _object(value, where)
    files = _object(content.get("files"), f"files of {where}")
    if not files:
        raise _damaged(f"files of {where}", "there are none")
    return Model(
        name=_checked(content, "name", lambda name: isinstance(name, str) and 0 < len(name) < 256),
        repo_id=_optional(content, "repo_id", _REPO),
        revision=_optional(content, "revision", _REVISION),
        num_hidden_layers=_number(content, "num_hidden_layers", least=1, most=MAX_LAYERS),
        num_parameters=_number(content, "num_parameters"),
        num_non_embedding_parameters=_number(content, "num_non_embedding_parameters"),
        files={name: _weight_file(name, file) for name, file in files.items()},
    )


def _weight_file(name: str, value: Any) -> WeightFile:
    if not _WEIGHTS.fullmatch(name):
        raise _damaged("files", name)
    content = _object(value, name)
    return WeightFile(_number(content, "nbytes"), _optional(content, "sha256", _SHA256))


def _step(value: Any) -> GrowthStep:
    content = _object(value, "steps")
    arguments = _object(content.get("arguments"), "arguments")
    for key, argument in arguments.items():
        fits = is_int(argument) and abs(argument) < _MAX_NUMBER
        fits = fits or (isinstance(argument, str) and bool(_ARGUMENT.fullmatch(argument)))
        if not _WORD.fullmatch(key) or not fits:
            raise _damaged("arguments", f"{key}: {argument}")
    return GrowthStep(
        operator=_checked(content, "operator", _is_word),
        arguments=arguments,
        layer_map=tuple(_source(item) for item in _list(content, "layer_map", most=MAX_LAYERS)),
        preserves_function=_checked(content, "preserves_function", lambda v: isinstance(v, bool)),
    )


def _source(item: Any) -> LayerSource:
    pair: Any = item if isinstance(item, list) and len(item) == 2 else (item, "copy")
    layer, mode = pair
    if not is_int(layer) or not 0 <= layer < MAX_LAYERS or not _is_word(mode):
        raise _damaged("layer_map", item)
    return LayerSource(layer, mode)


def _measured(content: Mapping[str, Any]) -> Measured:
    def real(key: str) -> float:
        return float(_checked(content, key, lambda v: is_int(v) or isinstance(v, float)))

    return Measured(
        text=_checked(content, "text", lambda v: isinstance(v, str) and len(v) < 80),
        num_tokens=_number(content, "num_tokens"),
        dtype=_checked(content, "dtype", _is_word),
        base_loss=real("base_loss"),
        grown_loss=real("grown_loss"),
        max_abs_dlogit=real("max_abs_dlogit"),
        mean_abs_dlogit=real("mean_abs_dlogit"),
        argmax_agreement=real("argmax_agreement"),
    )


def _words(value: Any, where: str) -> dict[str, str]:
    content = _object(value, where)
    for key, word in content.items():
        if not _is_word(key) or not _is_word(word):
            raise _damaged(where, f"{key}: {word}")
    return dict(content)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _damaged(where, value)
    return value


def _list(content: Mapping[str, Any], key: str, *, most: int) -> list[Any]:
    value: list[Any] = _checked(content, key, lambda v: isinstance(v, list) and 0 < len(v) <= most)
    return value


def _number(
    content: Mapping[str, Any], key: str, *, least: int = 0, most: int = _MAX_NUMBER
) -> int:
    return int(_checked(content, key, lambda v: is_int(v) and least <= v <= most))


def _optional(content: Mapping[str, Any], key: str, shape: re.Pattern[str]) -> str | None:
    if content.get(key) is None:
        return None
    return str(_checked(content, key, lambda v: isinstance(v, str) and bool(shape.fullmatch(v))))


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(_WORD.fullmatch(value))


def _checked(content: Mapping[str, Any], key: str, fits: Callable[[Any], bool]) -> Any:
    value = content.get(key)
    if not fits(value):
        raise _damaged(key, value)
    return value


def _damaged(where: str, found: object) -> ModelError:
    return ModelError(
        f"{MANIFEST} is damaged: {printable(where)} is {printable(repr(found))}",
        hint="remove it if the model's history does not matter",
    )
