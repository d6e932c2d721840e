"""Headers against the plan, bytes against the base."""

from dataclasses import replace
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.write import write
from hfgrow.errors import VerificationError
from hfgrow.growth.verify import check_headers, check_provenance
from hfgrow.plan.operators.stacking import stack
from hfgrow.plan.plan import GrowthPlan
from tests.attacks.craft import add_tensor, drop_tensors, read_raw, rename_tensors
from tests.checkpoints import edit_json

WEIGHTS = "model.safetensors"
ONE, OTHER = (f"model.layers.{i}.self_attn.q_proj.weight" for i in (1, 2))


@pytest.fixture
def plan(base: Path) -> GrowthPlan:
    return stack(read(LocalFolder(base)), g=2)


@pytest.fixture
def out(plan: GrowthPlan, tmp_path: Path) -> Path:
    write(plan, lay_out(plan), tmp_path / "out", finish=lambda staging: {})
    return tmp_path / "out"


def test_a_written_model_is_proved_tensor_by_tensor(plan: GrowthPlan, out: Path) -> None:
    counted: list[int] = []
    found = check_provenance(out, plan, advance=counted.append)
    assert (found.num_tensors, found.num_computed) == (len(plan.tensors), 0)
    assert sum(counted) == found.nbytes == plan.nbytes


@pytest.mark.parametrize("name", [ONE, "model.embed_tokens.weight", "model.norm.weight"])
def test_one_flipped_bit_is_found_and_named(plan: GrowthPlan, out: Path, name: str) -> None:
    header, data = read_raw(out / WEIGHTS)
    start = (out / WEIGHTS).stat().st_size - len(data)
    with (out / WEIGHTS).open("r+b") as file:
        at = start + header[name]["data_offsets"][1] - 1
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    check_headers(out, plan)
    with pytest.raises(VerificationError, match=rf"^{name} differs from {name} of the base"):
        check_provenance(out, plan)


def test_two_swapped_tensors_are_found(plan: GrowthPlan, out: Path) -> None:
    rename_tensors(out / WEIGHTS, {ONE: OTHER, OTHER: ONE})
    with pytest.raises(VerificationError, match="differs from"):
        check_provenance(out, plan)


def test_another_base_is_found(plan: GrowthPlan, out: Path, base: Path) -> None:
    weights = base / WEIGHTS
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)
    with pytest.raises(VerificationError, match="the base"):
        check_provenance(out, plan)


def test_a_missing_tensor_is_found(plan: GrowthPlan, out: Path) -> None:
    drop_tensors(out / WEIGHTS, ONE)
    with pytest.raises(VerificationError, match=f"cannot be read back: {ONE} is missing"):
        check_headers(out, plan)


def test_an_additional_tensor_is_found(plan: GrowthPlan, out: Path) -> None:
    add_tensor(out / WEIGHTS, "model.extra.weight", [4], bytes(16))
    with pytest.raises(VerificationError, match=r"model\.extra\.weight"):
        check_headers(out, plan)


def test_a_shorter_model_is_found(plan: GrowthPlan, out: Path) -> None:
    deeper = stack(plan, g=2)
    with pytest.raises(VerificationError, match="was planned but not written"):
        check_headers(out, deeper)


def test_a_deeper_model_is_found(plan: GrowthPlan, base: Path, out: Path) -> None:
    with pytest.raises(VerificationError, match="was written but not planned"):
        check_headers(out, read(LocalFolder(base)))


def test_another_dtype_is_found(plan: GrowthPlan, out: Path) -> None:
    tensors = dict(plan.tensors)
    tensors[ONE] = replace(tensors[ONE], dtype="BF16")
    with pytest.raises(VerificationError, match=rf"{ONE} is F32 .*planned was BF16"):
        check_headers(out, replace(plan, tensors=tensors))


@pytest.mark.parametrize(
    ("key", "value"), [("rms_norm_eps", 0.5), ("rope_parameters", None), ("new_key", 1)]
)
def test_an_edited_config_is_found(plan: GrowthPlan, out: Path, key: str, value: object) -> None:
    edit_json(out / "config.json", **{key: value})
    with pytest.raises(VerificationError, match=f"config.json: {key} is"):
        check_headers(out, plan)


@pytest.mark.case("A25")
def test_a_base_that_shrank_is_an_error_and_no_crash(
    plan: GrowthPlan, out: Path, base: Path
) -> None:
    with (base / WEIGHTS).open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(VerificationError, match="differs from"):
        check_provenance(out, plan)
