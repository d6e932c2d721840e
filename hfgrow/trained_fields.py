"""Read the record of a training out of hfgrow.json, which may come from a stranger."""

import re
from collections.abc import Mapping
from math import isclose
from typing import Any

from hfgrow.fields import (
    checked,
    damaged,
    is_argument,
    is_label,
    is_phrase,
    is_word,
    list_in,
    number,
    object_of,
    optional,
    real,
    shaped,
)
from hfgrow.operators.checks import MAX_SEED
from hfgrow.trained import DATASET, DECLARED, MEASURED, Compute, Evaluated, TrainingSource

_MAX_STAGES = 1000
_MAX_SOURCES = 1000
_MAX_EVALUATIONS = 1000
_MAX_SETTINGS = 100
_MAX_DEVICES = 1 << 24
_SPLIT = re.compile(r"[\w.-]{1,100}(\[(\d{1,3}%)?:(\d{1,3}%)?\])?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def training_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a training beside its models, by the names of `TrainingLink`.

    Raises:
        ModelError: One of them is missing, of the wrong kind, or out of bounds.
    """
    evaluations = list_in(content, "evaluations", least=0, most=_MAX_EVALUATIONS)
    return {
        "stage": number(content, "stage", most=_MAX_STAGES),
        "data": tuple(_source(item) for item in list_in(content, "data", most=_MAX_SOURCES)),
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


def _source(value: Any) -> TrainingSource:
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
