"""Weights are written as transformers writes them, and converted one tensor at a time."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from torch import Tensor

from hfgrow.errors import UsageError
from hfgrow.train.initial_weights import write_fresh, write_weights
from hfgrow.train.recipe.parts import FreshModel
from tests.checkpoints import SIZES
from tests.data.corpora import DEMO

TENSORS = {
    "model.layers.0.b": torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7,
    "model.layers.0.a": torch.linspace(-1, 1, 5),
    "lm_head.weight": torch.eye(3).T[:, :2],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_file_has_the_bytes_of_transformers_own(tmp_path: Path, dtype: torch.dtype) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    names = write_weights(ours, TENSORS, lambda name, tensor: tensor.to(dtype), dtype=dtype)
    converted = {name: tensor.to(dtype).contiguous() for name, tensor in TENSORS.items()}
    save_torch_state_dict(converted, theirs)
    assert names == ["model.safetensors"]
    assert (ours / names[0]).read_bytes() == (theirs / names[0]).read_bytes()


def test_what_does_not_fit_in_a_file_is_parted_as_transformers_parts_it(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    names = write_weights(ours, TENSORS, dtype=torch.float32, max_shard_nbytes=60)
    contiguous = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    save_torch_state_dict(contiguous, theirs, max_shard_size=60)
    assert len(names) > 1
    assert names == sorted(path.name for path in theirs.glob("*.safetensors"))
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    index = "model.safetensors.index.json"
    one, other = (json.loads((folder / index).read_text()) for folder in (ours, theirs))
    assert one["weight_map"] == other["weight_map"]
    assert one["metadata"]["total_size"] == other["metadata"]["total_size"]


def test_only_one_converted_tensor_is_in_memory(tmp_path: Path) -> None:
    made: list[weakref.ref[Tensor]] = []
    num_alive: list[int] = []

    def converted(name: str, tensor: Tensor) -> Tensor:
        num_alive.append(sum(reference() is not None for reference in made))
        result = tensor.to(torch.bfloat16)
        made.append(weakref.ref(result))
        return result

    (name,) = write_weights(tmp_path, TENSORS, converted, dtype=torch.bfloat16)
    assert num_alive == [0] * len(TENSORS)
    for key, tensor in load_file(tmp_path / name).items():
        assert torch.equal(tensor, TENSORS[key].bfloat16())


def test_a_type_that_has_another_tokenizer_opened_is_refused(tmp_path: Path) -> None:
    fresh = FreshModel(config={"model_type": "qwen2", **SIZES, "vocab_size": 2048})
    with pytest.raises(UsageError, match=r"beside a config\.json of model_type qwen2"):
        write_fresh(fresh, DEMO, 0, tmp_path / "fresh")
    assert list(tmp_path.iterdir()) == []
