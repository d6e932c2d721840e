"""The mask at run time, against checkpoints with the mask folded in by the program."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.errors import UsageError
from hfgrow.growth.mask import attach_mask
from hfgrow.lineage.manifest import Link
from hfgrow.lineage.read import manifest_of
from tests.checkpoints import MakeCheckpoint, load, logits
from tests.growths import with_exact_norms
from tests.program import call_hfgrow

FAMILIES = [("llama", False), ("llama", True), ("qwen3", True), ("gemma2", True), ("phi3", False)]
STEPS = {
    "random-width": ("--hidden-size", "48", "--ffn", "60", "--heads", "8"),
    "random-depth": ("--layers", "6"),
}


def grown(base: Path, out: Path, operator: str, mask: float) -> tuple[Any, Link]:
    options = (*STEPS[operator], "--mask", str(mask), "--seed", "3")
    finished = call_hfgrow(operator, base, *options, "--out", out)
    assert finished.returncode == 0, finished.stderr
    model = with_exact_norms(load(out)[0])
    return model, manifest_of(LocalFolder(out)).growth


@pytest.mark.parametrize("operator", STEPS)
@pytest.mark.parametrize(("model_type", "tied"), FAMILIES)
def test_the_masked_model_is_the_one_with_the_mask_folded_in(
    model_type: str, tied: bool, operator: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type, tied=tied, dtype="float64")
    model, link = grown(base, tmp_path / "start", operator, 0)
    mask = attach_mask(model, link, 0)
    expected = logits(with_exact_norms(load(base)[0]))
    assert float((logits(model) - expected).abs().max()) < 1e-12 * 8
    for value in (0.37, 1):
        folded, _ = grown(base, tmp_path / str(value), operator, value)
        mask.value = value
        assert float((logits(model) - logits(folded)).abs().max()) < 1e-12 * 8
    mask.value = 0.37
    masked = logits(model)
    mask.fold()
    assert float((logits(model) - masked).abs().max()) < 1e-12 * 8


@pytest.mark.parametrize("operator", STEPS)
def test_new_units_learn_only_as_far_as_the_mask_is_open(
    operator: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    model, link = grown(make_checkpoint(dtype="float64"), tmp_path / "out", operator, 0)
    mask = attach_mask(model, link, 0)
    name = {
        "random-width": "model.layers.0.mlp.down_proj.weight",
        "random-depth": "model.layers.5.mlp.down_proj.weight",
    }[operator]
    new = (slice(None), slice(48, None)) if operator == "random-width" else (slice(None),)
    sizes = []
    for value in (0.0, 0.5):
        mask.value = value
        model.zero_grad()
        tokens = torch.randint(1, 64, (2, 12), generator=torch.Generator().manual_seed(7))
        model(tokens, labels=tokens).loss.backward()
        sizes.append(float(model.get_parameter(name).grad[new].abs().max()))
    assert sizes[0] == 0
    assert sizes[1] > 0


def test_a_trained_model_keeps_its_weights(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    model, link = grown(make_checkpoint(), tmp_path / "out", "random-width", 0.5)
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight += 1e-3
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match="changed since it was grown"):
        attach_mask(model, link, 0)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_mask_opens_whatever_dtype_the_model_is_loaded_in(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(dtype="bfloat16")
    model, link = grown(base, tmp_path / "out", "random-width", 0.5)
    attach_mask(model.float(), link, 1)


def test_a_mask_is_from_0_to_1(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    model, link = grown(make_checkpoint(), tmp_path / "out", "random-width", 0)
    with pytest.raises(UsageError, match="from 0 to 1"):
        attach_mask(model, link, 7.5)


def test_other_growth_has_no_mask(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    call_hfgrow("stack", make_checkpoint(), "--g", "2", "--out", tmp_path / "out")
    link = manifest_of(LocalFolder(tmp_path / "out")).growth
    with pytest.raises(UsageError, match="stack, which has no mask"):
        attach_mask(load(tmp_path / "out")[0], link, 0)
