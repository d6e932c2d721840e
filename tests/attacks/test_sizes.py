"""Very large things: a header of 100 MB, tens of thousands of tensors, a plan of 70B."""

import json
import time
from pathlib import Path

import pytest

from hfgrow.checkpoint.header import MAX_HEADER_NBYTES, build_header
from tests.attacks.craft import read_raw, write_raw
from tests.program import run_hfgrow
from tests.skeletons import write_sparse

LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.mark.case("A3", "E18")
@pytest.mark.parametrize(("more", "code"), [(0, 0), (1, 3)], ids=["at-the-limit", "above"])
def test_a_header_of_a_hundred_megabytes_is_read_in_bounded_memory(
    base: Path, more: int, code: int
) -> None:
    weights = base / "model.safetensors"
    header, data = read_raw(weights)
    raw = json.dumps(header).encode().ljust(MAX_HEADER_NBYTES + more)
    write_raw(weights, raw, data)
    finished = run_hfgrow("check", base, address_space_nbytes=2 << 30)
    weights.unlink()
    assert finished.returncode == code, finished.stderr


@pytest.mark.case("A3", "E18")
@pytest.mark.slow
def test_a_header_full_of_tensors_is_refused_in_bounded_memory(base: Path) -> None:
    """1.4 million entries, all in order, none of them a tensor of the model."""
    tensors = [(f"t{i}", "F32", (1,)) for i in range(1_400_000)]
    raw = build_header(tensors, metadata={})
    assert 0.9 * MAX_HEADER_NBYTES < len(raw) <= MAX_HEADER_NBYTES + 8
    (base / "model.safetensors").write_bytes(raw + bytes(4 * len(tensors)))
    finished = run_hfgrow("check", base, address_space_nbytes=6 << 30, timeout=120)
    (base / "model.safetensors").unlink()
    assert finished.returncode == 3, finished.stderr
    assert "no tensor is of a layer, such as model.layers.0; the first is t0" in finished.stderr


@pytest.mark.case("D10", "I3")
def test_a_plan_of_70b_is_made_from_the_headers_alone(tmp_path: Path) -> None:
    base = tmp_path / "llama-70b"
    base.mkdir()
    try:
        write_sparse(base, LLAMA_70B, num_shards=30)
    except OSError:
        pytest.skip("the file system has no sparse files of that size")
    started = time.monotonic()
    finished = run_hfgrow(
        *("stack", base, "--g", "2", "--dry-run", "--json"),
        cwd=tmp_path,
        address_space_nbytes=2 << 30,
    )
    print(f"planned in {time.monotonic() - started:.2f} s")
    assert finished.returncode == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert "160" in json.dumps(document["num_hidden_layers"])
    assert document["nbytes"] > 270e9
    assert [path.name for path in tmp_path.iterdir()] == ["llama-70b"]


@pytest.mark.case("D9", "D10")
def test_a_growth_to_millions_of_layers_is_refused_soon(base: Path, tmp_path: Path) -> None:
    finished = run_hfgrow("stack", base, "--g", "10000000", "--out", tmp_path / "out", timeout=30)
    assert finished.returncode in (2, 7), finished.stderr
    assert not (tmp_path / "out").exists()
