"""Conversion to other dtypes, against torch's own casts."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from hfgrow.checkpoint.compute.chunks import chunks, computed, rows_of_files
from hfgrow.checkpoint.compute.evaluate import Evaluator
from hfgrow.errors import ModelError
from hfgrow.plan.plan import TensorPlan
from hfgrow.plan.tensors import Stored
from tests.checkpoints import MakeCheckpoint, edit_json, load, tensors_of
from tests.program import call_hfgrow

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
SPECIAL = [0.0, -0.0, 1.0, -1.5, 3.14159, 65504.0, 1e-7, 6e-8, 1e-8, float("inf"), -float("inf")]


def planned(from_dtype: str, to_dtype: str, num_elements: int) -> TensorPlan:
    return TensorPlan(to_dtype, Stored("source", "the.tensor", 3, (num_elements,), from_dtype))


def cast(numbers: torch.Tensor, to_dtype: str, folder: Path) -> torch.Tensor:
    """Convert from a file, at an odd offset."""
    (from_dtype,) = (name for name, dtype in DTYPES.items() if dtype == numbers.dtype)
    (folder / "source").write_bytes(b"odd" + bytes(numbers.view(torch.uint8).tolist()))
    source = os.open(folder / "source", os.O_RDONLY)
    try:
        evaluator = Evaluator(rows_of_files(lambda name: source))
        tensor = planned(from_dtype, to_dtype, numbers.numel())
        found = [bytes(computed(chunk, evaluator)) for chunk in chunks("the.tensor", tensor)]
    finally:
        os.close(source)
    return torch.frombuffer(bytearray(b"".join(found)), dtype=DTYPES[to_dtype])


@pytest.mark.parametrize("chunk", [1 << 22, 7], ids=["whole", "in chunks"])
@pytest.mark.parametrize("to_dtype", DTYPES)
@pytest.mark.parametrize("from_dtype", DTYPES)
def test_conversion_is_torchs_own_cast(
    from_dtype: str, to_dtype: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfgrow.checkpoint.compute.chunks._CHUNK_ELEMENTS", chunk)
    random = torch.randn(50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    numbers = torch.cat([torch.tensor(SPECIAL, dtype=torch.float64), random]).to(DTYPES[from_dtype])
    numbers = numbers[numbers.to(torch.float16).isfinite() | ~numbers.isfinite()]
    assert torch.equal(cast(numbers, to_dtype, tmp_path), numbers.to(DTYPES[to_dtype]))


def test_what_is_no_number_stays_none(tmp_path: Path) -> None:
    found = cast(torch.tensor([float("nan"), 1.0]), "BF16", tmp_path)
    assert found.isnan().tolist() == [True, False]


@pytest.mark.case("A23")
@pytest.mark.parametrize(
    ("value", "from_dtype", "to_dtype"),
    [
        (65520.0, "F32", "F16"),
        (-1e30, "BF16", "F16"),
        (3.4e38, "F32", "BF16"),
        (1e39, "F64", "F32"),
    ],
)
def test_a_finite_number_that_does_not_fit_is_refused(
    value: float, from_dtype: str, to_dtype: str, tmp_path: Path
) -> None:
    numbers = torch.tensor([1.0, value, value], dtype=DTYPES[from_dtype])
    with pytest.raises(ModelError, match=r"the\.tensor: 2 values are too large for"):
        cast(numbers, to_dtype, tmp_path)


def test_a_source_that_ends_early_was_changed(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(8))
    source = os.open(tmp_path / "source", os.O_RDONLY)
    (chunk,) = chunks("x", planned("F32", "BF16", 4))
    with pytest.raises(ModelError, match="changed while it was read"):
        computed(chunk, Evaluator(rows_of_files(lambda name: source)))
    os.close(source)


@pytest.mark.parametrize(
    ("stored", "asked"), [("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "bfloat16")]
)
def test_the_dtype_option_converts_every_tensor_and_says_so(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, stored: str, asked: str
) -> None:
    base, out = make_checkpoint(dtype=stored), tmp_path / "out"
    finished = call_hfgrow("stack", base, "--g", "2", "--dtype", asked, "--out", out)
    assert finished.returncode == 0, finished.stderr
    before, after = tensors_of(base), tensors_of(out)
    dtype = getattr(torch, asked)
    for name, tensor in after.items():
        source = before[re.sub(r"layers\.(\d+)", lambda m: f"layers.{int(m[1]) % 4}", name)]
        assert tensor.dtype == dtype
        assert torch.equal(tensor, source.to(dtype))
    assert load(out)[0].dtype == dtype


@pytest.mark.case("C18")
@pytest.mark.parametrize(
    "keys", [("dtype",), ("torch_dtype",), ("dtype", "torch_dtype"), ()], ids=str
)
def test_the_config_names_the_new_dtype_under_every_key_it_has(
    base: Path, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    edit_json(base / "config.json", **{"dtype": ..., **dict.fromkeys(keys, "float32")})
    call_hfgrow("stack", base, "--g", "2", "--dtype", "bfloat16", "--out", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    found = {key: config[key] for key in ("dtype", "torch_dtype") if key in config}
    assert found == dict.fromkeys(keys or ("dtype",), "bfloat16")


@pytest.mark.case("A23")
def test_an_overflow_leaves_no_output(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e5
    save_file(tensors, base / "model.safetensors")
    finished = call_hfgrow(
        "stack", base, "--g", "2", "--dtype", "float16", "--out", tmp_path / "out"
    )
    assert finished.returncode == 3
    assert "model.norm.weight" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
