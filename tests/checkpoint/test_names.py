"""Names of tensors as wrappers, trainers and other libraries store them, read as the class has."""

import json
import shutil
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read, usual_names
from hfgrow.errors import ModelError
from hfgrow.train.stage import load_model
from tests.attacks.craft import add_tensor, drop_tensors, edit_config, read_raw, rename_tensors
from tests.attacks.refusal import check_refused
from tests.checkpoints import MakeCheckpoint, edit_json, load, logits, tensors_of
from tests.program import call_hfgrow

WEIGHTS = "model.safetensors"
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def tied(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    """A tied model that the test may change."""
    return Path(shutil.copytree(make_checkpoint("qwen3", tied=True), tmp_path / "tied"))


@pytest.fixture
def promising(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    """A tied model in shards whose index names the head too."""
    folder = Path(shutil.copytree(make_checkpoint(tied=True, sharded=True), tmp_path / "shards"))
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    edit_json(folder / INDEX, weight_map=found | {HEAD: found[EMBEDDINGS]})
    return folder


def renamed(folder: Path, old: str, new: str) -> None:
    names = read_raw(folder / WEIGHTS)[0]
    rename_tensors(folder / WEIGHTS, {name: name.replace(old, new, 1) for name in names})


def prefixed(folder: Path, prefix: str) -> None:
    names = read_raw(folder / WEIGHTS)[0]
    rename_tensors(folder / WEIGHTS, {n: prefix + n for n in names if n != "__metadata__"})


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model.", "language_model."]
)
def test_the_prefix_of_a_wrapper_is_no_part_of_a_name(base: Path, prefix: str) -> None:
    usual = read(LocalFolder(base)).tensors
    prefixed(base, prefix)
    plan = read(LocalFolder(base))
    assert plan.tensors.keys() == usual.keys()
    (note,) = plan.notes
    assert prefix in note


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self_attn.", "_fsdp_wrapped_module.self_attn."),
        ("mlp.", "_checkpoint_wrapped_module.mlp."),
        ("self_attn.", "self_attn._orig_mod."),
        ("model.", "model.language_model."),
    ],
)
def test_a_wrapper_inside_a_name_is_no_part_of_it(base: Path, old: str, new: str) -> None:
    usual = read(LocalFolder(base)).tensors
    renamed(base, old, new)
    assert read(LocalFolder(base)).tensors.keys() == usual.keys()


def test_a_backbone_saved_alone_is_a_tied_model(tied: Path) -> None:
    usual = read(LocalFolder(tied)).tensors
    renamed(tied, "model.", "")
    assert read(LocalFolder(tied)).tensors.keys() == usual.keys()


def test_a_backbone_without_its_head_is_refused(base: Path) -> None:
    drop_tensors(base / WEIGHTS, HEAD)
    renamed(base, "model.", "")
    check_refused(base, HEAD, "random")


def test_a_base_with_odd_names_is_grown_and_measured_as_it_is(base: Path, tmp_path: Path) -> None:
    """Transformers would take random numbers for names it does not know."""
    wanted = logits(load(base)[0])
    prefixed(base, "_orig_mod.")
    finished = call_hfgrow("zero-depth", base, "--every", "2", "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert (logits(load_model(base)) - wanted).abs().max() == 0
    assert call_hfgrow("verify", tmp_path / "out").returncode == 0
    assert not [name for name in tensors_of(tmp_path / "out") if "_orig_mod" in name]


def test_two_names_of_one_tensor_are_refused(base: Path) -> None:
    add_tensor(base / WEIGHTS, f"_orig_mod.{EMBEDDINGS}", [4], bytes(16))
    check_refused(base, f"_orig_mod.{EMBEDDINGS}", "both")


def test_layers_of_another_tower_do_not_decide(base: Path) -> None:
    prefixed(base, "language_model.")
    add_tensor(base / WEIGHTS, "vision_tower.layers.0.mlp.weight", [4], bytes(16))
    check_refused(base, "vision_tower", "images")


def test_an_adapter_beside_its_base_is_called_one(base: Path) -> None:
    renamed(base, "q_proj.", "q_proj.base_layer.")
    add_tensor(base / WEIGHTS, "model.layers.0.self_attn.q_proj.lora_A.weight", [4], bytes(16))
    check_refused(base, "lora_A", "LoRA adapter")


def test_a_tied_model_may_be_stored_by_its_head(tied: Path) -> None:
    usual = read(LocalFolder(tied)).tensors
    rename_tensors(tied / WEIGHTS, {EMBEDDINGS: HEAD})
    plan = read(LocalFolder(tied))
    assert plan.tensors.keys() == usual.keys()
    assert any(HEAD in note for note in plan.notes)


def test_an_untied_model_may_not_be_stored_by_its_head(base: Path) -> None:
    drop_tensors(base / WEIGHTS, EMBEDDINGS)
    check_refused(base, EMBEDDINGS, "missing")


def test_an_index_may_promise_a_tied_head(promising: Path) -> None:
    assert HEAD not in read(LocalFolder(promising)).tensors


def test_an_index_may_not_promise_a_head_that_is_not_tied(promising: Path) -> None:
    edit_config(promising, tie_word_embeddings=False)
    check_refused(promising, HEAD, "in no shard")


def test_usual_names_stay_as_they_are() -> None:
    names = ["model.layers.0.mlp.up_proj.weight", EMBEDDINGS, HEAD, "something.else"]
    assert usual_names(names) == {name: name for name in names}


def test_colliding_names_are_told_by_both() -> None:
    with pytest.raises(ModelError, match=r"module\.a and a are both a"):
        usual_names(["module.a", "a"])


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_tensors_emptied_by_zero3_are_told_with_their_shape(base: Path, prefix: str) -> None:
    drop_tensors(base / WEIGHTS, EMBEDDINGS)
    add_tensor(base / WEIGHTS, EMBEDDINGS, [0], b"")
    prefixed(base, prefix)
    with pytest.raises(ModelError, match=r"is empty, shape \[0\] instead of \[64, 32\]") as caught:
        read(LocalFolder(base))
    assert "zero_to_fp32" in caught.value.hint


def test_a_file_without_any_tensor_is_told_as_that(base: Path) -> None:
    names = read_raw(base / WEIGHTS)[0]
    drop_tensors(base / WEIGHTS, *names)
    with pytest.raises(ModelError, match="no tensors at all") as caught:
        read(LocalFolder(base))
    assert "ZeRO-3" in caught.value.hint
