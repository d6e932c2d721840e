"""The promise of the same function: measured, held to a tolerance, and recorded as it is."""

import json
import shutil
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hfgrow.errors import VerificationError
from hfgrow.growth.grow import grow
from hfgrow.growth.request import GrowthRequest
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.operators import ALL_OPERATORS, OPERATORS
from hfgrow.plan.operators.operator import Operator, operator
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.promise import TOLERANCES, Measured, check_promise, coarser
from hfgrow.plan.tensors import DTYPE_NBYTES
from tests.checkpoints import MakeCheckpoint, edit_json, tensors_of
from tests.program import Finished, call_hfgrow

FULL = Measured("a text", 64, "float32", 3.0, 3.0, 0.0, 0.0, 1.0, 0.0, 20.0)
HALF = replace(FULL, dtype="bfloat16", max_abs_dlogit=1.0)


@operator("liar", axis="depth", preserves_function=True, formula="o[i] = i mod l", paper="nobody")
def liar(own: Operator[...], base: GrowthPlan, *, g: int = 2) -> GrowthPlan:
    """Stack the layers and promise that nothing changes.

    Args:
        own: The operator, for the record.
        base: The plan to grow.
        g: Growth factor.
    """
    layer_map = [*range(base.num_hidden_layers)] * g
    return apply_layer_map(base, layer_map, own.step({"g": g}))


@pytest.fixture
def with_liar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "liar", liar)
    monkeypatch.setitem(ALL_OPERATORS, "liar", liar)


def base_in(folder: Path, make_checkpoint: MakeCheckpoint, dtype: str) -> Path:
    return Path(shutil.copytree(make_checkpoint("llama", dtype=dtype), folder / "base"))


def with_large_norms(base: Path, folder: Path) -> Path:
    """Copy a base, its norms four times and more as large: rounding then takes more of a logit."""
    shutil.copytree(base, folder)
    generator = torch.Generator().manual_seed(4)
    tensors = tensors_of(folder)
    for name in tensors:
        if "norm" in name:
            noise = torch.rand(tensors[name].shape, generator=generator)
            tensors[name] = tensors[name] * 4 * (1 + 2 * noise)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def grow_with(operator: str, folder: Path, *more: str) -> Finished:
    (folder / "steps.yaml").write_text(f"- {operator}: {{g: 2}}")
    words = ("apply", "steps.yaml", "base", "--out", "out", *more)
    return call_hfgrow(*words, cwd=folder)


@pytest.mark.usefixtures("with_liar")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_broken_promise_stops_a_growth_before_its_output_appears(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, dtype: str
) -> None:
    base_in(tmp_path, make_checkpoint, dtype)
    finished = grow_with("liar", tmp_path, "--verify")
    assert finished.returncode == 9, finished.stderr
    (error,) = (line for line in finished.stderr.splitlines() if line.startswith("Error: "))
    assert "promises the same function" in error
    assert dtype in error
    assert ("max |dlogit|" if dtype == "float32" else "mean KL") in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "steps.yaml"]


@pytest.mark.usefixtures("with_liar")
def test_a_broken_promise_fails_the_verification(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base_in(tmp_path, make_checkpoint, "float32")
    assert grow_with("liar", tmp_path).returncode == 0
    finished = call_hfgrow("verify", "out", "--json", cwd=tmp_path)
    assert finished.returncode == 9
    error = json.loads(finished.stdout)["error"]
    assert error["measured"]["max_abs_dlogit"] > 1e-4 * error["measured"]["max_abs_logit"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_a_kept_promise_is_verified(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, dtype: str
) -> None:
    base_in(tmp_path, make_checkpoint, dtype)
    finished = grow_with("zero-depth", tmp_path, "--verify")
    assert finished.returncode == 0, finished.stderr
    assert "function  preserved" in finished.stderr
    verified = call_hfgrow("verify", "out", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert "preserved, within the tolerance" in verified.stdout
    assert "KL 0 nats" in verified.stdout
    assert verified.stdout.splitlines()[-1].endswith(", and computes what that does")
    assert verified.stderr.endswith("Next: hfgrow push out\n")


def test_a_growth_that_promises_nothing_is_not_held_to_it(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base_in(tmp_path, make_checkpoint, "float32")
    assert grow_with("stack", tmp_path, "--verify").returncode == 0
    assert call_hfgrow("verify", "out", cwd=tmp_path).returncode == 0


def test_a_conversion_is_held_to_the_tolerance_of_the_coarser_dtype(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base_in(tmp_path, make_checkpoint, "float32")
    finished = grow_with("zero-depth", tmp_path, "--verify", "--dtype", "bfloat16")
    assert finished.returncode == 0, finished.stderr
    link = json.loads((tmp_path / "out" / "hfgrow.json").read_text())["chain"][0]
    assert link["measured"]["dtype"] == "bfloat16"
    assert link["measured"]["max_abs_dlogit"] > 0


@pytest.mark.parametrize(("operator", "claim"), [("stack", True), ("zero-depth", False)])
@pytest.mark.parametrize("command", ["verify", "reproduce"])
def test_a_record_of_another_promise_than_the_operators_is_refused(
    base: Path, tmp_path: Path, operator: str, claim: bool, command: str
) -> None:
    assert grow_with(operator, tmp_path).returncode == 0
    chain = json.loads((tmp_path / "out" / "hfgrow.json").read_text())["chain"]
    chain[0]["steps"][0]["preserves_function"] = claim
    edit_json(tmp_path / "out" / "hfgrow.json", chain=chain)
    finished = call_hfgrow(command, "out", cwd=tmp_path)
    assert finished.returncode == 9, finished.stderr
    assert "records the opposite" in finished.stderr


def test_every_dtype_has_a_tolerance() -> None:
    from hfgrow.plan.tensors import CONFIG_DTYPES

    assert set(TOLERANCES) == set(CONFIG_DTYPES)
    assert len(TOLERANCES) == len(DTYPE_NBYTES)


@pytest.mark.parametrize(
    "measured",
    [
        FULL,
        replace(FULL, max_abs_dlogit=0.0019),
        replace(FULL, grown_loss=9.0),
        replace(FULL, max_abs_dlogit=0.0199, rounding=0.005),
        HALF,
        replace(HALF, mean_kl=0.0199),
        replace(HALF, grown_loss=3.049),
    ],
    ids=repr,
)
def test_what_is_within_the_tolerance_passes(measured: Measured) -> None:
    check_promise(measured)


@pytest.mark.parametrize(
    "measured",
    [
        replace(FULL, max_abs_dlogit=0.0021),
        replace(FULL, dtype="float64", max_abs_dlogit=0.0021),
        replace(FULL, max_abs_dlogit=0.0201, rounding=0.005),
        replace(FULL, max_abs_dlogit=nan),
        replace(HALF, mean_kl=0.0201),
        replace(HALF, mean_kl=nan),
        replace(HALF, grown_loss=2.949),
        replace(HALF, dtype="float16", grown_loss=3.051),
    ],
    ids=repr,
)
def test_what_is_beyond_the_tolerance_is_told(measured: Measured) -> None:
    with pytest.raises(VerificationError, match=rf"in {measured.dtype} .* at most 0\.0"):
        check_promise(measured)


@pytest.mark.parametrize("model_type", ["llama", "olmo2"])
def test_a_growth_of_large_norms_that_holds_in_exact_arithmetic_is_no_fault(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, model_type: str
) -> None:
    base = with_large_norms(make_checkpoint(model_type), tmp_path / "base")
    request = GrowthRequest(
        model=str(base), steps=[("lemon", {"g": 2})], out=tmp_path / "out", verify=True
    )
    manifest = grow(request).manifest
    assert manifest is not None
    measured = manifest.growth.measured
    assert measured is not None
    assert measured.max_abs_logit is not None
    assert measured.max_abs_dlogit > 1e-4 * measured.max_abs_logit, "float32 does not hold it"
    assert measured.rounding is not None
    assert measured.max_abs_dlogit <= 4 * measured.rounding


@pytest.mark.usefixtures("with_liar")
def test_a_fault_does_not_hide_behind_the_rounding_of_large_norms(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    with_large_norms(make_checkpoint("olmo2"), tmp_path / "base")
    finished = grow_with("liar", tmp_path, "--verify")
    assert finished.returncode == 9, finished.stderr
    assert "measuring what rounding does to both models" in finished.stderr
    assert "promises the same function" in finished.stderr


def test_the_coarser_dtype_is_the_one_that_rounds_more() -> None:
    assert coarser("float32", "bfloat16") == coarser("bfloat16", "float32") == "bfloat16"
    assert coarser("float64", "float32") == "float32"


def test_a_base_is_measured_in_the_finer_dtype_of_what_grew_from_it(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """Else its own rounding would be measured, and next to any fault would pass."""
    base = base_in(tmp_path, make_checkpoint, "bfloat16")
    steps = [("hyperclone", {"g": 2})]
    request = GrowthRequest(
        model=str(base), steps=steps, out=tmp_path / "out", dtype="float32", verify=True
    )
    manifest = grow(request).manifest
    assert manifest is not None
    measured = manifest.growth.measured
    assert measured is not None
    assert measured.dtype == "float32"
    assert measured.max_abs_dlogit < 1e-4
