"""A folder of another kind is told for what it is, with the command that makes a model of it."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.foreign import refuse_folder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError

KINDS = {
    "fsdp": (["pytorch_model_fsdp_0/__0_0.distcp"], "DCP", "accelerate merge-weights"),
    "dcp": (["__0_0.distcp", ".metadata"], "DCP", "accelerate merge-weights"),
    "deepspeed": (
        ["latest", "global_step10/mp_rank_00_model_states.pt", "zero_to_fp32.py"],
        "DeepSpeed",
        "deepspeed.utils.zero_to_fp32",
    ),
    "verl": (["model_world_size_2_rank_0.pt"], "verl", "verl.model_merger"),
    "megatron": (["latest_checkpointed_iteration.txt", "iter_10/x.pt"], "Megatron", "Bridge"),
    "nemo": (["model.nemo"], "NeMo", "export"),
    "mistral": (["consolidated.safetensors", "params.json"], "Mistral", "convert_mistral"),
    "meta": (["consolidated.00.pth", "params.json"], "pickle", "convert_llama"),
    "litgpt": (["lit_model.pth"], "LitGPT", "convert_from_litgpt"),
    "gguf": (["m-Q4_K.gguf"], "GGUF", "gguf_file='m-Q4_K.gguf'"),
    "pickle": (["pytorch_model.bin"], "pickle", "save_pretrained"),
    "sharded": (["pytorch_model-00001-of-00002.bin"], "pickle", "save_pretrained"),
    "adapter": (["adapter_config.json", "adapter_model.safetensors"], "LoRA", "merge_and_unload"),
    "one": (["model-00001-of-00001.safetensors"], "model-00001-of-00001", "mv "),
    "renamed": (["weights.safetensors"], "weights.safetensors", "mv "),
    "parts": (
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        "and 1 more",
        "model.safetensors.index.json",
    ),
    "onnx": (["onnx/model.onnx"], "ONNX", "made of"),
}


@pytest.mark.parametrize("with_config", [True, False], ids=["config", "no config"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_another_kind_is_refused_with_the_way_out(
    base: Path, kind: str, with_config: bool
) -> None:
    files, what, remedy = KINDS[kind]
    (base / "model.safetensors").unlink()
    if not with_config:
        (base / "config.json").unlink()
    for file in files:
        (base / file).parent.mkdir(exist_ok=True)
        (base / file).write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        read(LocalFolder(base))
    assert what in str(caught.value)
    assert remedy in caught.value.hint


def test_what_a_trainer_leaves_beside_weights_is_not_called_weights(base: Path) -> None:
    (base / "model.safetensors").unlink()
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt"):
        (base / name).write_bytes(b"x")
    said = r"holds what a trainer keeps beside the weights \(optimizer\.pt\), and no weights$"
    with pytest.raises(ModelError, match=said):
        read(LocalFolder(base))


def test_the_last_checkpoint_inside_is_named(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (200, 1000):
        shutil.copytree(base, run / f"checkpoint-{step}")
    (run / "trainer_state.json").write_text("{}")
    with pytest.raises(ModelError, match="checkpoint-1000 in it does") as caught:
        read(LocalFolder(run))
    assert caught.value.hint.endswith("run/checkpoint-1000")


def test_a_repository_folder_of_the_cache_names_its_snapshot(base: Path, tmp_path: Path) -> None:
    cached = tmp_path / "models--a--b"
    shutil.copytree(base, cached / "snapshots" / ("0" * 40))
    with pytest.raises(ModelError, match="snapshots/0000"):
        read(LocalFolder(cached))


def test_a_command_holds_in_a_folder_whose_name_has_a_space(tmp_path: Path) -> None:
    part = tmp_path / "my run" / "my dcp" / "__0_0.distcp"
    part.parent.mkdir(parents=True)
    part.touch()
    with pytest.raises(ModelError) as caught:
        refuse_folder(LocalFolder(tmp_path / "my run"))
    command = next(text for text in re.findall(r"accelerate [^;:]*", caught.value.hint))
    assert str(part.parent) in shlex.split(command)
