"""Read a checkpoint into the identity plan: config, index and every header, checked together.

transformers loads a checkpoint whose layers are missing and fills them at random, reads whichever
shard comes last, and follows paths out of the folder. This reader refuses instead.

torch.compile, data parallelism, FSDP, activation checkpointing, PEFT and the frames of multimodal
models put words of their own into the names of tensors, and a backbone saved alone lacks its
`model.`: they are read under the names that the class of the model has.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.derived.checked import derived
from hfgrow.checkpoint.files import CONFIG, INDEX, SINGLE, Files, leaves_by_link
from hfgrow.checkpoint.foreign import EMPTIED
from hfgrow.checkpoint.header import Entry, read_header, read_index
from hfgrow.console import Progress, Silent, load
from hfgrow.errors import ModelError, printable
from hfgrow.plan.families.table import Family
from hfgrow.plan.plan import GrowthPlan, LayerSource, SourceFile, TensorPlan, stored_in
from hfgrow.plan.tensors import Stored

EMBEDDINGS = "model.embed_tokens.weight"
# Buffers that old checkpoints store and every model class recomputes.
_RECOMPUTED = re.compile(
    r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.((original_)?inv_freq|(cos|sin)_cached)"
)
_COMPARE_NBYTES = 1 << 22
_WRAPPERS = frozenset(
    {
        "_checkpoint_wrapped_module",
        "_forward_module",
        "_fsdp_wrapped_module",
        "_orig_mod",
        "module",
    }
)
_BACKBONE = "model."
_HEAD = "lm_head.weight"
# What stands before the first number of a layer.
_BEFORE_LAYERS = re.compile(r"((?:[A-Za-z_]\w*\.)*?)layers\.\d+\.", re.ASCII)


def read(files: Files, progress: Progress | None = None) -> GrowthPlan:
    """Read a checkpoint strictly, without reading a weight.

    The one exception: where the config ties the head to the embeddings and both are stored, their
    bytes are compared.

    Args:
        files: A folder or a repository.
        progress: Told where transformers has to be imported; None tells nobody.

    Returns:
        The plan that reproduces the checkpoint.

    Raises:
        ModelError: The config, the index and the tensors do not agree exactly.
    """
    config, family, notes = read_config(files)
    index = read_index(files)
    names = [SINGLE] if index is None else sorted(set(index.weight_map.values()))
    # Stamps before headers: a file that is replaced in between must not pass for the one read.
    sources = {name: SourceFile(files.nbytes(name), files.stamp(name)) for name in names}
    headers = {name: read_header(files, name) for name in names}
    is_tied = family is not None and family.is_tied(config)
    tied_names = (family.head.tensor, EMBEDDINGS) if family and is_tied else ()
    if files.folder and (place := leaves_by_link(Path(files.folder), [CONFIG, *names])):
        notes.append(f"links lead out of the folder, to {place}: what lies there is read")
    stored = _merge(headers, None if index is None else index.weight_map, tied_names)
    if index is not None:
        notes += index.notes(
            sum(entry.nbytes for file in headers.values() for entry in file.values())
        )
    if family is None:
        load(progress or Silent())
        return _derived(files, config, stored, sources, notes)
    names_found = usual_names(stored)
    notes += _renaming_notes(names_found)
    tensors = {names_found[name]: tensor for name, tensor in stored.items()}
    dropped = [name for name in tensors if _RECOMPUTED.fullmatch(name)]
    for name in dropped:
        del tensors[name]
    if dropped:
        notes.append(f"{len(dropped)} rotary buffers were dropped: they are recomputed")
    tied = _settle_head(files, config, family, tensors, notes)
    _check_tensors(family, config, tensors, notes, tied=tied)
    return GrowthPlan(
        folder=files.folder,
        config=config,
        family=family.model_type,
        layer_map=tuple(LayerSource(i) for i in range(config["num_hidden_layers"])),
        tensors=tensors,
        files=sources,
        notes=tuple(notes),
    )


def _derived(
    files: Files,
    config: dict[str, Any],
    tensors: dict[str, TensorPlan],
    sources: Mapping[str, SourceFile],
    notes: list[str],
) -> GrowthPlan:
    """Return the plan of a checkpoint of a family that transformers tells."""

    def same_bytes(one: TensorPlan, other: TensorPlan) -> bool:
        return _same_bytes(files, stored_in(one), stored_in(other))

    family = derived(config, tensors, notes, same_bytes if files.folder else None)
    return GrowthPlan(
        folder=files.folder,
        config=config,
        family=family.model_type,
        layer_map=tuple(LayerSource(i) for i in range(len(family.kinds))),
        tensors=tensors,
        files=sources,
        notes=tuple(notes),
        derived=family,
    )


def usual_names(names: Collection[str]) -> dict[str, str]:
    """Return every name as the class of the model has it; what is not understood keeps its name.

    Args:
        names: As they are stored.

    Raises:
        ModelError: Two of them are one.
    """
    bare = {name: _unwrapped(name) for name in names}
    prefix = _prefix_of_backbone(bare.values())
    usual: dict[str, str] = {}
    for name, text in bare.items():
        usual[name] = _in_the_model(text, prefix) if prefix != _BACKBONE else text
    found: dict[str, str] = {}
    for name, text in usual.items():
        if (other := found.setdefault(text, name)) != name:
            raise ModelError(
                f"{printable(other)} and {printable(name)} are both {printable(text)}",
                hint="save the model again, unwrapped: with its own save_pretrained",
            )
    return usual


def _renaming_notes(names: Mapping[str, str]) -> list[str]:
    """Return a note about names that were stored otherwise."""
    changed = {name: text for name, text in names.items() if name != text}
    if not changed:
        return []
    name, text = next(iter(changed.items()))
    return [
        f"{len(changed)} of {len(names)} tensors have names of a wrapper or of the backbone alone: "
        f"{printable(name)} is read as {printable(text)}"
    ]


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefix_of_backbone(names: Collection[str]) -> str:
    """Return what stands before `layers.0.` in the names of the text model."""
    found = {match[1] for name in names if (match := _BEFORE_LAYERS.match(name))}
    with_embeddings = {prefix for prefix in found if f"{prefix}embed_tokens.weight" in names}
    prefixes = with_embeddings or found
    return prefixes.pop() if len(prefixes) == 1 else _BACKBONE


def _in_the_model(name: str, prefix: str) -> str:
    """Return a name with the prefix of the class instead of the one found."""
    if name == _HEAD or name.endswith(f".{_HEAD}"):
        return _HEAD
    return _BACKBONE + name.removeprefix(prefix) if name.startswith(prefix) else name


def _merge(
    headers: Mapping[str, Mapping[str, Entry]],
    weight_map: Mapping[str, str] | None,
    tied_names: tuple[str, ...],
) -> dict[str, TensorPlan]:
    """Return every tensor under its stored name; an index may promise one of two tied ones."""
    if weight_map is None:
        weight_map = dict.fromkeys(headers[SINGLE], SINGLE)
    tensors: dict[str, TensorPlan] = {}
    for file, entries in headers.items():
        for name, entry in entries.items():
            if name in tensors:
                other = stored_in(tensors[name]).file
                raise ModelError(f"{printable(name)} lies in two shards, {other} and {file}")
            if name not in weight_map:
                raise ModelError(f"{file}: {printable(name)} is not in {INDEX}")
            if weight_map[name] != file:
                raise ModelError(
                    f"{INDEX} puts {printable(name)} in {printable(weight_map[name])}, "
                    f"but it lies in {file}"
                )
            stored = Stored(file, name, entry.offset, entry.shape, entry.dtype)
            tensors[name] = TensorPlan(entry.dtype, stored)
    for name in weight_map:
        if name not in tensors and name not in tied_names:
            raise ModelError(f"{INDEX} names {printable(name)}, which is in no shard")
    return tensors


def _settle_head(
    files: Files,
    config: dict[str, Any],
    family: Family,
    tensors: dict[str, TensorPlan],
    notes: list[str],
) -> bool:
    """Decide from the tensors whether the head is tied, and make config and tensors say so."""
    head = family.head.tensor
    if not family.is_tied(config):
        if head not in tensors and EMBEDDINGS in tensors:
            raise ModelError(
                f"{head} is missing and tie_word_embeddings is false: the head would be random",
                hint='set "tie_word_embeddings": true in config.json if the model is tied',
            )
        return False
    if head in tensors and EMBEDDINGS not in tensors:
        # Whoever keeps one of two tied names may keep the one that sorts last.
        tensors[EMBEDDINGS] = tensors.pop(head)
        notes.append(f"{head} holds the embeddings that it is tied to: read as {EMBEDDINGS}")
        return True
    if head not in tensors:
        return True
    if not files.folder:
        notes.append(f"{head} is stored although tied; whether it differs shows after download")
        config["tie_word_embeddings"] = False
        return False
    if _same_bytes(files, stored_in(tensors[head]), stored_in(tensors[EMBEDDINGS])):
        del tensors[head]
        notes.append(f"{head} equals the embeddings it is tied to and is stored once")
        return True
    config["tie_word_embeddings"] = False
    notes.append(
        f"{head} differs from the embeddings although config.json ties them: "
        "both are kept and tie_word_embeddings is false now"
    )
    return False


def _same_bytes(files: Files, one: Stored, other: Stored) -> bool:
    if one.nbytes != other.nbytes or one.dtype != other.dtype:
        return False
    return all(
        files.read(one.file, one.offset + at, min(_COMPARE_NBYTES, one.nbytes - at))
        == files.read(other.file, other.offset + at, min(_COMPARE_NBYTES, one.nbytes - at))
        for at in range(0, one.nbytes, _COMPARE_NBYTES)
    )


def _check_tensors(
    family: Family,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorPlan],
    notes: Sequence[str],
    *,
    tied: bool,
) -> None:
    _check_empty(family, config, tensors, tied=tied)
    _check_depth(config["num_hidden_layers"], tensors)
    expected = family.shapes(config, tied=tied)
    explained = [name for name in tensors if name not in expected and _explain(name)]
    _refuse_odd(family, tensors, explained)
    for name, shape in expected.items():
        if name not in tensors:
            raise ModelError(f"{name} is missing; config.json demands it, shape {list(shape)}")
        if tensors[name].shape != shape:
            raise ModelError(
                f"{stored_in(tensors[name]).file}: {name} has shape {list(tensors[name].shape)}, "
                f"but config.json demands {list(shape)}",
                hint=_left_out(family, config, name, notes),
            )
    _refuse_odd(family, tensors, [name for name in tensors if name not in expected])


def _left_out(family: Family, config: Mapping[str, Any], name: str, notes: Sequence[str]) -> str:
    """Say which sizes config.json leaves to the class, where a tensor may have others."""
    told = [note for note in notes if note.startswith("config.json leaves")]
    if not told and ".self_attn." in name:
        sizes = family.sizes(config)
        keys = {"num_key_value_heads": sizes["kv_heads"], "head_dim": sizes["head_dim"]}
        absent = [f"{key}, which is then {keys[key]}" for key in keys if config.get(key) is None]
        told = [f"config.json leaves out {' and '.join(absent)}"] if absent else []
    return next(iter(told), "")


def _refuse_odd(family: Family, tensors: Mapping[str, TensorPlan], odd: Sequence[str]) -> None:
    """Refuse tensors that the model does not have, by the first of them."""
    for name in odd:
        raise ModelError(
            f"{stored_in(tensors[name]).file}: {printable(name)} is no tensor of a "
            f"{family.model_type} with this config{_explain(name)}"
        )


def _check_empty(
    family: Family, config: Mapping[str, Any], tensors: Mapping[str, TensorPlan], *, tied: bool
) -> None:
    """Refuse what ZeRO-3 leaves where a process saves what it does not hold."""
    empty = [name for name, tensor in tensors.items() if not tensor.num_elements]
    if tensors and not empty:
        return
    if not tensors:
        raise ModelError("the weight files hold no tensors at all", hint=EMPTIED)
    # The number of layers is not compared yet, and may be anything.
    num_layers = min(config["num_hidden_layers"], len(tensors))
    expected = family.shapes({**config, "num_hidden_layers": num_layers}, tied=tied)
    name = next((name for name in empty if name in expected), empty[0])
    shape = f"{list(expected[name])} by config.json" if name in expected else "no tensor of this"
    raise ModelError(
        f"{stored_in(tensors[name]).file}: {printable(name)} is empty, shape "
        f"{list(tensors[name].shape)} instead of {shape}"
        + (f", and {len(empty) - 1} more are" if empty[1:] else ""),
        hint=EMPTIED,
    )


def _check_depth(num_layers: int, tensors: Mapping[str, TensorPlan]) -> None:
    found = {
        int(match[1])
        for name in tensors
        if (match := re.match(r"model\.layers\.(\d{1,9})\.", name))
    }
    # The number is a stranger's: no range of it is made.
    if len(found) == num_layers and max(found, default=-1) == num_layers - 1:
        return
    if not found:
        name, tensor = next(iter(tensors.items()))
        raise ModelError(
            f"{stored_in(tensor).file}: no tensor is of a layer, such as model.layers.0; the first "
            f"is {printable(stored_in(tensor).name)}{_explain(name)}"
        )
    gaps = found != set(range(len(found)))
    shown = f"layers {sorted(found)[:8]}, with gaps" if gaps else f"{len(found)} layers"
    raise ModelError(
        f"config.json says num_hidden_layers {num_layers}, but the tensors show {shown}"
    )


def _explain(name: str) -> str:
    if "lora_" in name or name.startswith("base_model."):
        return ": a LoRA adapter; merge it into its base first"
    if re.search(r"scale|qweight|qzeros|absmax|quant", name):
        return ": a quantised checkpoint; grow the unquantised base"
    if re.search(r"(^|\.)(vision|audio|image|multi_modal|mm_|visual)", name):
        return ": a part for images or sound; save the text model alone (language_model)"
    if "expert" in name or ".router" in name:
        return ": part of a mixture of experts that config.json does not tell of"
    return ""
