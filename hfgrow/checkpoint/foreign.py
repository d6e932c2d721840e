"""What lies in a folder that holds no model in safetensors, and what makes one of it.

Told by the names of the files alone; none is opened.
"""

import os
import re
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from hfgrow.checkpoint.files import CONFIG, INDEX, SINGLE, Files
from hfgrow.errors import ModelError, printable

_MOST_ENTRIES = 1000
# Of tensors that each process holds a part of, and that nobody gathered.
EMPTIED = (
    "saved by DeepSpeed ZeRO-3 without gathering: python -m deepspeed.utils.zero_to_fp32 "
    "CHECKPOINT OUT --safe_serialization, or save it again with "
    "stage3_gather_16bit_weights_on_model_save"
)
# What a trainer leaves beside the weights, in pickles too.
_NO_WEIGHTS = re.compile(
    r"(.*/)?(training_args|optimizer|scheduler|scaler|random_states?|rng_state)[\w.-]*"
)
_SHARD = re.compile(r"[\w.-]+-(\d{1,6})-of-(\d{1,6})\.safetensors", re.ASCII)
_STEP = re.compile(r"(\d+)\D*$")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of checkpoint.

    Attributes:
        pattern: Matches the path of a file of it, inside the folder.
        what: What it is, as the end of "FOLDER holds ...".
        remedy: From the folder and the path of the file, as a shell takes them, to what to do.
    """

    pattern: re.Pattern[str]
    what: str
    remedy: Callable[[str, str], str]


def _loading(model: str, more: str = "") -> str:
    words = f"from transformers import AutoModelForCausalLM as M; M.from_pretrained({model}"
    return f"python -c \"{words}, dtype='auto'{more}).save_pretrained('OUT')\""


def _in_python(text: str) -> str:
    return repr(shlex.split(text)[0])


def _old(script: str) -> Callable[[str, str], str]:
    return lambda folder, file: (
        f"with transformers 4: python -m transformers.models.{script} --input_dir {folder} "
        "--output_dir OUT"
    )


def _merged(folder: str, file: str) -> str:
    inside = os.path.join(shlex.split(folder)[0], os.path.dirname(shlex.split(file)[0]))
    return f"accelerate merge-weights {shlex.quote(inside.rstrip('/'))} {folder}"


# In the order in which they are looked for: those that hold pickles of their own before pickles.
_KINDS = (
    _Kind(
        re.compile(r"adapter_config\.json"),
        "a LoRA adapter, not a model",
        lambda folder, file: (
            'merge it into its base: python -c "from peft import AutoPeftModelForCausalLM as M; '
            f"M.from_pretrained({_in_python(folder)}).merge_and_unload().save_pretrained('OUT')\""
        ),
    ),
    _Kind(
        re.compile(r"global_step\w*/.*|zero_to_fp32\.py|(.*/)?[\w.-]*_(model|optim)_states\.pt"),
        "a checkpoint of DeepSpeed",
        lambda folder, file: (
            f"python -m deepspeed.utils.zero_to_fp32 {folder} {folder} --safe_serialization"
        ),
    ),
    _Kind(
        re.compile(r"(.*/)?[\w.-]+\.distcp"),
        "a distributed checkpoint of torch (DCP, as FSDP saves it)",
        _merged,
    ),
    _Kind(
        re.compile(r"model_world_size_\d+_rank_\d+\.pt"),
        "a checkpoint of verl, a part for each process",
        lambda folder, file: (
            "python -m verl.model_merger merge --backend fsdp --local_dir "
            f"{folder} --target_dir OUT"
        ),
    ),
    _Kind(
        re.compile(r"latest_checkpointed_iteration\.txt|iter_\d+/.*|(.*/)?mp_rank_\d+.*/.*"),
        "a checkpoint of Megatron",
        lambda folder, file: "export it with Megatron Bridge: AutoBridge.export_ckpt",
    ),
    _Kind(
        re.compile(r"[\w.-]+\.nemo"),
        "an archive of NeMo",
        lambda folder, file: "export it to Hugging Face's format with NeMo",
    ),
    _Kind(
        re.compile(r"consolidated[\w.-]*\.safetensors"),
        "weights under Mistral's own names",
        _old("mistral.convert_mistral_weights_to_hf"),
    ),
    _Kind(
        re.compile(r"consolidated\.\d+\.pth"),
        "only PyTorch pickle files, under Meta's own names",
        _old("llama.convert_llama_weights_to_hf"),
    ),
    _Kind(
        re.compile(r"lit_model[\w.]*\.pth"),
        "only PyTorch pickle files, of LitGPT",
        lambda folder, file: f"litgpt convert_from_litgpt {folder} OUT",
    ),
    _Kind(
        re.compile(r"[\w.-]+\.gguf", re.IGNORECASE),
        "only GGUF files",
        lambda folder, file: (
            "take the model that it was made of, or "
            + _loading(_in_python(folder), f", gguf_file={_in_python(file)}")
        ),
    ),
    _Kind(
        re.compile(r"[\w.-]+\.(bin|pt|pth|ckpt)(\.index\.json)?"),
        "only PyTorch pickle files",
        lambda folder, file: "where you trust it: " + _loading(_in_python(folder)),
    ),
    _Kind(
        re.compile(r"[\w.-]+\.h5"),
        "only Keras files",
        lambda folder, file: (
            "with transformers 4: " + _loading(_in_python(folder), ", from_tf=True")
        ),
    ),
    _Kind(
        re.compile(r"[\w.-]+\.msgpack"),
        "only Flax files",
        lambda folder, file: (
            "with transformers 4: " + _loading(_in_python(folder), ", from_flax=True")
        ),
    ),
    _Kind(
        re.compile(r"[\w.-]+\.npz"),
        "only NumPy files",
        lambda folder, file: "take the model that they were made of",
    ),
    _Kind(
        re.compile(r"(.*/)?[\w.-]+\.onnx"),
        "only ONNX files",
        lambda folder, file: "take the model that they were made of",
    ),
)


def refuse_folder(files: Files) -> None:
    """Refuse a folder or repository by what lies there, if that is known.

    Raises:
        ModelError: It is; the hint is the command that makes safetensors of it.
    """
    names, inside = files.names(), _inside(files)
    if "adapter_config.json" not in names and (SINGLE in names or INDEX in names):
        return
    if found := _told(files, names, of_folder=files.folder or files.label.partition("@")[0]):
        raise found
    if model := _model_below(inside):
        below = printable(os.path.join(files.label, model), 200)
        raise ModelError(
            f"{files.label} holds no model itself, but {printable(model)} in it does",
            hint=f"give {below}",
        )
    if found := _told(files, inside, of_folder=files.folder):
        raise found
    if kept := [name for name in names if _NO_WEIGHTS.fullmatch(name)]:
        raise ModelError(
            f"{files.label} holds what a trainer keeps beside the weights "
            f"({printable(sorted(kept)[0])}), and no weights",
            hint="give the folder that the trainer saved the model in",
        )


def _told(files: Files, names: Collection[str], *, of_folder: str) -> ModelError | None:
    folder = shlex.quote(printable(of_folder, 200))
    weights = sorted(name for name in names if not _NO_WEIGHTS.fullmatch(name))
    for kind in _KINDS:
        for name in weights:
            if kind.pattern.fullmatch(name):
                return ModelError(
                    f"{files.label} holds {kind.what} ({printable(name)}), no {SINGLE}",
                    hint=kind.remedy(folder, shlex.quote(printable(name, 200))),
                )
    others = [name for name in weights if name.endswith(".safetensors")]
    return _other_names(files, others, folder) if others else None


def _other_names(files: Files, names: list[str], folder: str) -> ModelError:
    """Return the refusal of safetensors that nothing says how to put together."""
    first = printable(names[0])
    shard = _SHARD.fullmatch(names[0])
    if len(names) == 1 and (shard is None or int(shard[2]) == 1):
        return ModelError(
            f"{files.label} holds {first}, but neither {SINGLE} nor {INDEX}",
            hint=f"if it is the whole model: cd {folder} && mv {shlex.quote(first)} {SINGLE}",
        )
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return ModelError(
        f"{files.label} holds {first}{more}, but no {INDEX}, which says what lies where",
        hint=f"bring {INDEX} from where they came from, or save the model again",
    )


def _model_below(names: Collection[str]) -> str:
    """Return the last of the folders inside that hold a model; empty if none does."""
    folders = {os.path.dirname(name) for name in names if os.path.basename(name) == CONFIG}
    models = [
        folder
        for folder in folders
        if f"{folder}/{SINGLE}" in names or f"{folder}/{INDEX}" in names
    ]

    def step(folder: str) -> tuple[int, str]:
        number = _STEP.search(folder)
        return int(number[1]) if number else -1, folder

    return max(models, key=step, default="")


def _inside(files: Files) -> list[str]:
    """Return the paths of what lies up to two folders deep in a folder here, not endlessly many."""
    found: list[str] = []
    if not files.folder:
        return found
    root = Path(files.folder)
    for path, folders, names in os.walk(root):
        below = os.path.relpath(path, root)
        if below == ".":
            folders.sort()
            continue
        found += [os.path.join(below, name) for name in sorted(names)]
        if below.count("/") >= 1:
            folders.clear()
        if len(found) > _MOST_ENTRIES:
            break
    return found
