"""Group A, weights that are no numbers: found where they are read, and where somebody asks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import MakeCheckpoint, load
from tests.program import Finished, call_hfgrow

NORM, Q_PROJ = "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"
WIDER = ("hyperclone", "--g", "2")


def poke(base: Path, tensor: str, *values: float) -> None:
    """Put numbers at the end of a tensor, which a look at its first rows would miss."""
    weights = load_file(base / "model.safetensors")
    weights[tensor].view(-1)[-len(values) :] = torch.tensor(values).to(weights[tensor].dtype)
    save_file(weights, base / "model.safetensors", {"format": "pt"})


def grow(base: Path, *words: str) -> Finished:
    operator, *more = words
    return call_hfgrow(operator, base, *more, "--out", base.parent / "out")


def check_refused(finished: Finished, base: Path, tensor: str, num: int) -> None:
    assert finished.returncode == 3, finished.stderr
    assert f"model.safetensors: {tensor} holds {num} values that are NaN or inf" in finished.stderr
    assert [path.name for path in base.parent.iterdir()] == ["base"]


@pytest.mark.case("A20")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_computed_from_no_numbers_is_refused(base: Path, value: float) -> None:
    poke(base, Q_PROJ, value, 1.0, value)
    check_refused(grow(base, *WIDER), base, Q_PROJ, 2)


@pytest.mark.case("A20")
def test_a_factor_that_makes_infinity_of_a_finite_base_is_told_as_that(base: Path) -> None:
    finished = grow(base, "tensor-scale", "o_proj:1e39", "--layers", "[2]")
    assert finished.returncode == 3
    said = " values came out NaN or infinite, of a base that is finite\n"
    assert said in finished.stderr
    assert "Hint: what this growth multiplies by is too large for it\n" in finished.stderr
    assert [path.name for path in base.parent.iterdir()] == ["base"]


@pytest.mark.case("A20")
@pytest.mark.parametrize("tensor", [NORM, Q_PROJ])
def test_a_verified_growth_looks_at_every_weight_first(base: Path, tensor: str) -> None:
    poke(base, tensor, float("nan"))
    check_refused(grow(base, "stack", "--g", "2", "--verify"), base, tensor, 1)


@pytest.mark.case("A20")
def test_a_check_looks_at_every_weight_if_asked(base: Path) -> None:
    good = call_hfgrow("check", base, "--weights", "--json")
    assert json.loads(good.stdout)["weights_are_finite"] is True
    poke(base, Q_PROJ, float("nan"), float("inf"))
    poke(base, NORM, float("nan"))
    assert call_hfgrow("check", base).returncode == 0
    finished = call_hfgrow("check", base, "--weights")
    check_refused(finished, base, Q_PROJ, 2)
    assert "1 more tensors" in finished.stderr


@pytest.mark.case("A20")
def test_large_numbers_whose_sum_overflows_are_numbers(base: Path) -> None:
    poke(base, Q_PROJ, *[3e38] * 8)
    assert call_hfgrow("check", base, "--weights").returncode == 0
    assert grow(base, *WIDER).returncode == 0


@pytest.mark.case("A20")
@pytest.mark.parametrize("words", [WIDER, ("stack", "--g", "2", "--verify")], ids=" ".join)
def test_whoever_wants_them_gets_them(base: Path, words: tuple[str, ...]) -> None:
    poke(base, Q_PROJ, float("nan"))
    finished = grow(base, *words, "--allow-nonfinite")
    assert finished.returncode == 0, finished.stderr
    assert any(p.isnan().any() for p in load(base.parent / "out")[0].parameters())
    assert ("logits are not measured" in finished.stderr) == ("--verify" in words)


@pytest.mark.case("A23")
@pytest.mark.parametrize(
    ("words", "tensor"),
    [
        (("head-dim", "--factor", "4"), "model.layers.1.self_attn.q_proj.weight"),
        (("zero-width", "--g", "2"), "model.embed_tokens.weight"),
    ],
    ids=["head-dim", "zero-width"],
)
def test_numbers_that_a_growth_makes_too_large_for_their_dtype_are_refused(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, words: tuple[str, ...], tensor: str
) -> None:
    base = Path(shutil.copytree(make_checkpoint(dtype="float16"), tmp_path / "base"))
    poke(base, tensor, 65504.0, 30_000.0)
    finished = grow(base, *words)
    assert finished.returncode == 3, finished.stderr
    assert f"{tensor}: 1 values are too large for float16" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    assert grow(base, *words, "--dtype", "bfloat16").returncode == 0
