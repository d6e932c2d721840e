"""Growth in memory, bit for bit what is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import hfgrow
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.write import write
from hfgrow.errors import ModelError, UsageError
from hfgrow.growth.memory import grow_state_dict, plan_state_dict
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS, apply
from tests.checkpoints import MakeCheckpoint, load, logits, tensors_of
from tests.growths import Case

Steps = list[tuple[str, dict[str, object]]]


def steps_of(case: Case) -> Steps:
    if case.operator == "branch-scale":
        return [("stack", {"g": 2}), ("branch-scale", {"exponent": 0.5})]
    operator, *words = case.command
    if operator == "partial":
        return [(operator, {"pattern": words[0]})]
    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    values = [yaml.safe_load(word) for word in words[1::2]]
    return [(operator, dict(zip(names, values, strict=True)))]


def written(base: Path, steps: Steps, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    plan = read(LocalFolder(base))
    for operator, arguments in steps:
        plan = apply(plan, operator, arguments)
    write(plan, lay_out(plan), out, finish=lambda staging: {})
    return tensors_of(out), json.loads((out / "config.json").read_text())


def assert_same(found: Any, expected: Any) -> None:
    (tensors, config), (other_tensors, other_config) = found, expected
    assert config == other_config
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == other_tensors[name].dtype
        assert torch.equal(tensor, other_tensors[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_model_grows_to_the_bits_that_are_written(
    operator: str, dtype: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    tied = operator == "untie" or list(OPERATORS).index(operator) % 2 == (dtype == "float32")
    case = Case(operator, "llama", tied, sharded=False, grouped=True)
    base = make_checkpoint("llama", **case.base(dtype))
    model = load(base)[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = grow_state_dict(model, steps_of(case))
    assert_same(found, written(base, steps_of(case), tmp_path / "out"))
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    theirs = {tensor.data_ptr() for tensor in after.values()}
    assert not theirs & {tensor.data_ptr() for tensor in found[0].values()}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_grows_in_memory(
    model_type: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(model_type, dtype="bfloat16")
    steps: Steps = [("hyperclone-noisy", {"hidden_size": 64, "ffn": 96}), ("stack", {"layers": 7})]
    found = grow_state_dict(load(base)[0], steps)
    assert_same(found, written(base, steps, tmp_path / "out"))


def test_a_state_dict_grows_with_its_config(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["hfgrow"] = {"of": "the base"}
    steps: Steps = [("hyperclone", {"g": 2})]
    found = grow_state_dict(tensors_of(base), steps, config=config)
    assert_same(found, written(base, steps, tmp_path / "out"))
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
