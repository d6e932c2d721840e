"""Growth in memory, bit for bit what is written.

The mask at run time, against checkpoints with the mask folded in by the program.
"""

import json
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import hfgrow
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import write
from hfgrow.errors import ModelError, UsageError
from hfgrow.growth.mask import attach_mask
from hfgrow.growth.memory import grow_state_dict, plan_state_dict
from hfgrow.lineage.manifest import Link
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.operators import OPERATORS, apply
from tests.checkpoints import MakeCheckpoint, load, logits, tensors_of
from tests.families import EVERY_DENSE_FAMILY
from tests.growths import MIXTURES, Case, with_exact_norms
from tests.program import call_hfgrow
from tests.sampling import sampled

typed_step = import_module("hfgrow_cli.typed_steps").typed_step

Steps = list[tuple[str, dict[str, object]]]


def steps_of(case: Case) -> Steps:
    if case.operator == "branch-scale":
        return [("stack", {"g": 2}), ("branch-scale", {"exponent": 0.5})]
    return [typed_step(shlex.join(case.command))]


def written(base: Path, steps: Steps, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    plan = read(LocalFolder(base))
    for operator, arguments in steps:
        plan = apply(plan, operator, arguments)
    with staged(out) as staging:
        write(plan, lay_out(plan), staging)
    return tensors_of(out), json.loads((out / "config.json").read_text())


def check_same(found: Any, expected: Any) -> None:
    (tensors, config), (other_tensors, other_config) = found, expected
    assert config == other_config
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == other_tensors[name].dtype
        assert torch.equal(tensor, other_tensors[name]), name


@pytest.mark.parametrize(("operator", "dtype"), sampled(OPERATORS, ("float32", "bfloat16")))
def test_a_model_grows_to_the_bits_that_are_written(
    operator: str, dtype: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    tied = operator == "untie" or list(OPERATORS).index(operator) % 4 // 2 == (dtype == "float32")
    case = Case(operator, "llama", tied, sharded=False, grouped=True)
    base = make_checkpoint("llama", **case.base(dtype))
    model = load(base)[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = grow_state_dict(model, steps_of(case))
    check_same(found, written(base, steps_of(case), tmp_path / "out"))
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    theirs = {tensor.data_ptr() for tensor in after.values()}
    assert not theirs & {tensor.data_ptr() for tensor in found[0].values()}


@pytest.mark.parametrize("model_type", EVERY_DENSE_FAMILY)
def test_every_family_grows_in_memory(
    model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type, dtype="bfloat16")
    wider: dict[str, object] = {"hidden_size": 64, "ffn": 96}
    if model_type == "helium":
        # Its heads are as wide as its stream.
        wider["heads"] = 8
    steps: Steps = [("hyperclone-noisy", wider), ("stack", {"layers": 7})]
    found = grow_state_dict(load(base)[0], steps)
    check_same(found, written(base, steps, tmp_path / "out"))


@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_mixture_grows_in_memory_where_its_experts_are_one_tensor(
    model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type, dtype="bfloat16")
    steps: Steps = [("upcycle", {"experts": 8, "top_k": 2}), ("stack", {"g": 2})]
    found = grow_state_dict(load(base)[0], steps)
    check_same(found, written(base, steps, tmp_path / "out"))


@pytest.mark.parametrize("base", ["olmo2", "mixtral"])
def test_a_mixture_that_was_made_in_memory_computes_what_its_base_does(
    base: str, make_checkpoint: MakeCheckpoint
) -> None:
    model = load(make_checkpoint(base))[0]
    grown = hfgrow.grow_model(model, [("upcycle", {"experts": 8})])
    assert grown.config.num_local_experts == 8
    assert torch.allclose(logits(grown), logits(model), atol=1e-4)


def test_a_state_dict_grows_with_its_config(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["hfgrow"] = {"of": "the base"}
    steps: Steps = [("hyperclone", {"g": 2})]
    found = grow_state_dict(tensors_of(base), steps, config=config)
    check_same(found, written(base, steps, tmp_path / "out"))
    assert "hfgrow" in config


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_transformers_loads_what_was_grown(tied: bool, make_checkpoint: MakeCheckpoint) -> None:
    model = load(make_checkpoint(tied=tied))[0]
    state, config = hfgrow.grow_state_dict(model, [("hyperclone-noisy", {"g": 2})])
    grown = (
        type(model)
        .from_pretrained(None, config=type(model.config)(**config), state_dict=state)
        .eval()
    )
    assert torch.allclose(logits(grown), logits(model), atol=1e-4)
    assert grown.config.hidden_size == 64


def test_a_head_that_differs_although_tied_is_kept(make_checkpoint: MakeCheckpoint) -> None:
    base = make_checkpoint(tied=True)
    config = json.loads((base / "config.json").read_text())
    tensors = tensors_of(base)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    state, grown = grow_state_dict(tensors, [("stack", {"g": 2})], config=config)
    assert torch.equal(state["lm_head.weight"], tensors["lm_head.weight"])
    assert not grown["tie_word_embeddings"]


def test_the_plan_has_the_names_and_shapes_of_what_is_grown(base: Path) -> None:
    model = load(base)[0]
    steps: Steps = [("zero-depth", {"g": 2})]
    plan = plan_state_dict(model, steps)
    state = grow_state_dict(model, steps)[0]
    assert {name: tensor.shape for name, tensor in plan.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }


def test_what_does_not_fit_is_refused(base: Path) -> None:
    model = load(base)[0]
    config = json.loads((base / "config.json").read_text())
    tensors = tensors_of(base)
    with pytest.raises(UsageError, match="needs the config"):
        grow_state_dict(tensors, [("stack", {"g": 2})])
    with pytest.raises(UsageError, match="has its own config"):
        grow_state_dict(model, [("stack", {"g": 2})], config=config)
    with pytest.raises(UsageError, match="a Linear is neither"):
        grow_state_dict(torch.nn.Linear(1, 1), [("stack", {"g": 2})])
    with pytest.raises(UsageError, match="no growth step"):
        grow_state_dict(model, [])
    with pytest.raises(UsageError, match="at least 2"):
        grow_state_dict(model, [("stack", {"g": 1})])
    gain = "model.norm.weight"
    others = {name: tensor for name, tensor in tensors.items() if name != gain}
    whole = tensors[gain].to(torch.int8)
    with pytest.raises(ModelError, match=r"model\.norm\.weight is missing"):
        grow_state_dict(others, [("stack", {"g": 2})], config=config)
    with pytest.raises(ModelError, match="shape"):
        grow_state_dict(tensors | {gain: torch.ones(3)}, [("stack", {"g": 2})], config=config)
    with pytest.raises(ModelError, match="int8"):
        grow_state_dict(tensors | {gain: whole}, [("stack", {"g": 2})], config=config)


MASKED_FAMILIES = [
    pytest.param("llama", False),
    pytest.param("llama", True),
    pytest.param("qwen3", True),
    pytest.param("gemma2", True),
    pytest.param("phi3", False),
]
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


@pytest.mark.parametrize(("model_type", "tied", "operator"), sampled(MASKED_FAMILIES, STEPS))
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
    down = model.float().model.layers[3].mlp.down_proj.weight
    half = down.clone()
    attach_mask(model, link, 1)
    moved = down != half
    assert moved.any()
    assert (down[moved].abs() > half[moved].abs()).all()


def test_a_mask_is_from_0_to_1(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    model, link = grown(make_checkpoint(), tmp_path / "out", "random-width", 0)
    with pytest.raises(UsageError, match="from 0 to 1"):
        attach_mask(model, link, 7.5)


def test_other_growth_has_no_mask(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    call_hfgrow("stack", make_checkpoint(), "--g", "2", "--out", tmp_path / "out")
    link = manifest_of(LocalFolder(tmp_path / "out")).growth
    with pytest.raises(UsageError, match="stack, which has no mask"):
        attach_mask(load(tmp_path / "out")[0], link, 0)
