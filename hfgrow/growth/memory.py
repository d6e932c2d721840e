"""Growth of a model in memory: no files, no lineage, the same bits as the streamed writer.

grown = hfgrow.grow_model(model, [("hyperclone-noisy", {"g": 2})])
"""

import json
from collections.abc import Mapping
from typing import Any

from hfgrow.checkpoint.compute.state_dict import dtype_of, evaluated
from hfgrow.checkpoint.files import CONFIG, SINGLE
from hfgrow.checkpoint.header import build_header
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, UsageError, printable
from hfgrow.growth.steps import Steps, planned
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import DTYPE_NBYTES


def grow_state_dict(
    model: Any, steps: Steps, *, config: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Grow a model that lies in memory; it stays as it is.

    Args:
        model: A transformers model, or a state dict: tensor name -> tensor.
        steps: The operators to apply, in order: a name in the table, and its arguments by name.
        config: The config.json that belongs to a state dict; None for a model, which has its own.

    Returns:
        The grown tensors, on the CPU and in the dtypes of the base, and the grown config. They are
        named and shaped as in a checkpoint: without a head that is tied to the embeddings, and
        with one matrix for each expert.

    Raises:
        ModelError: Tensors and config do not agree exactly, or hfgrow cannot grow such a model.
        UsageError: A step cannot be, or the config is missing.
    """
    tensors, plan = _planned(model, steps, config)
    return evaluated(plan.tensors, tensors), dict(plan.config)


def grow_model(model: Any, steps: Steps) -> Any:
    """Grow a transformers model that lies in memory into another, which is returned; it stays.

    It is `grow_state_dict` and then::

        kind, settings = type(model), type(model.config)
        kind.from_pretrained(None, config=settings(**config), state_dict=state, dtype="auto")

    which every tensor must fit; a tied head is tied again. Of a dense model that becomes a mixture
    of experts the class is the one that the grown config names.

    Args:
        model: The model; of a state dict there is only `grow_state_dict`.
        steps: The operators to apply, in order.

    Raises:
        ModelError: As in `grow_state_dict`; or transformers does not take the result as it is.
        UsageError: As in `grow_state_dict`.
    """
    import transformers

    from hfgrow.growth.loading import silence_transformers

    state, config = grow_state_dict(model, steps)
    silence_transformers()
    kind, settings = type(model), type(model.config)
    if config["model_type"] != model.config.model_type:
        kind = getattr(transformers, config["architectures"][0])
        settings = kind.config_class
    grown, info = kind.from_pretrained(
        None,
        config=settings(**config),
        state_dict=state,
        dtype=model.dtype,
        output_loading_info=True,
    )
    odd = [
        name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[key]
    ]
    if odd:
        raise ModelError(
            f"transformers does not take {printable(odd[0])} of the grown model as it is"
        )
    return grown.to(model.device).train(model.training)


def plan_state_dict(
    model: Any, steps: Steps, *, config: Mapping[str, Any] | None = None
) -> GrowthPlan:
    """Return the plan of `grow_state_dict`, whose leaves have the names of the model's tensors.

    Args:
        model: A transformers model, or a state dict.
        steps: The operators to apply, in order.
        config: The config.json that belongs to a state dict; None for a model.

    Raises:
        ModelError: As in `grow_state_dict`.
        UsageError: As in `grow_state_dict`.
    """
    return _planned(model, steps, config)[1]


def _planned(
    model: Any, steps: Steps, config: Mapping[str, Any] | None
) -> tuple[dict[str, Any], GrowthPlan]:
    tensors, settings = _parts(model, config)
    # It would say where the base comes from.
    settings.pop("hfgrow", None)
    _drop_tied_head(tensors, settings)
    base = read(_OneFile(settings, tensors))
    return tensors, planned(base, steps)


def _parts(model: Any, config: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    from transformers import PreTrainedModel

    if isinstance(model, Mapping):
        if config is None:
            raise UsageError("a state dict needs the config that belongs to it")
        return dict(model), dict(config)
    if not isinstance(model, PreTrainedModel):
        raise UsageError(
            f"a {type(model).__name__} is neither a transformers model nor a state dict",
            hint="unwrap it: give the PreTrainedModel itself",
        )
    if config is not None:
        raise UsageError("a model has its own config; leave the other one out")
    # What save_pretrained would write.
    settings: dict[str, Any] = json.loads(model.config.to_json_string())
    settings["architectures"] = [type(model).__name__]
    settings["dtype"] = str(model.dtype).removeprefix("torch.")
    from hfgrow.growth.forward import as_stored

    return as_stored(model, dict(model.state_dict())), settings


def _drop_tied_head(tensors: dict[str, Any], config: Mapping[str, Any]) -> None:
    import torch

    family = FAMILIES.get(config.get("model_type", ""))
    if family is None or not family.is_tied(config):
        return
    head, embeddings = (tensors.get(role.tensor) for role in (family.head, family.embeddings))
    if head is None or embeddings is None or head.dtype != embeddings.dtype:
        return
    if torch.equal(*(tensor.contiguous().view(torch.uint8) for tensor in (head, embeddings))):
        del tensors[family.head.tensor]


class _OneFile:
    """A state dict as a checkpoint of one file, of which the reader sees config and header."""

    label = "the state dict"
    folder = ""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        entries = [
            (name, dtype_of(name, tensor), tuple(tensor.shape)) for name, tensor in tensors.items()
        ]
        header = build_header(entries, metadata={})
        self._files = {CONFIG: json.dumps(config).encode(), SINGLE: header}
        content_nbytes: int = sum(
            tensors[name].numel() * DTYPE_NBYTES[dtype] for name, dtype, _ in entries
        )
        self._nbytes = {CONFIG: len(self._files[CONFIG]), SINGLE: len(header) + content_nbytes}

    def names(self) -> list[str]:
        return list(self._files)

    def nbytes(self, name: str) -> int:
        return self._nbytes[name]

    def stamp(self, name: str) -> tuple[int, ...]:
        return ()

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        return self._files[name][start : start + nbytes]
