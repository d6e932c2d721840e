"""A growth taken back: the base bit for bit, or a refusal that names the weight that is gone."""

import json
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.reach.prove import base_of
from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError, VerificationError
from hfgrow.growth.grow import grow
from hfgrow.growth.request import GrowthRequest
from hfgrow.growth.steps import Steps
from hfgrow.growth.ungrow import ungrow
from tests.checkpoints import MakeCheckpoint, edit_json
from tests.program import call_hfgrow
from tests.sampling import sampled

WEIGHTS = "model.safetensors"
UNDONE: dict[str, Steps] = {
    "layers that add nothing": [("zero-depth", {"every": 2})],
    "a stack": [("stack", {"layers": 6})],
    "a middle that stands twice": [("lidas", {"block": 2})],
    "fresh layers": [("random-depth", {"layers": 6})],
    "neurons twice, halved": [("hyperclone", {"ffn": 96})],
    "neurons that write zeros": [("zero-width", {"ffn": 60})],
    "every width twice": [("hyperclone", {"g": 2})],
    "a head of its own": [("untie", {})],
    "branches by half": [("stack", {"g": 2}), ("branch-scale", {"exponent": 1.0})],
    "all of it": [("untie", {}), ("zero-depth", {"g": 2}), ("hyperclone", {"ffn": 96})],
}
KEPT: dict[str, tuple[Steps, str]] = {
    "noise": (
        [("hyperclone-noisy", {"ffn": 96})],
        "down_proj.weight of the base cannot be had back: its copies were told apart by noise",
    ),
    "thirds": ([("hyperclone", {"ffn": 144})], "it was multiplied by 0.333333, which rounds"),
    "mixed": ([("paper-noise", {"amount": 0.1})], "it was mixed with other weights"),
}


def digest_of(folder: Path) -> str:
    return sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def grown(base: Path, steps: Steps, out: Path) -> Path:
    return grow(GrowthRequest(model=str(base), steps=steps, out=out, record_hashes=True)).out


@pytest.mark.parametrize("what", UNDONE)
def test_a_growth_is_taken_back_bit_for_bit(
    what: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen3", tied=True, dtype="bfloat16")
    found = ungrow(grown(base, UNDONE[what], tmp_path / "grown"), tmp_path / "back")
    assert not found.unproved
    assert found.sha256 == digest_of(tmp_path / "back") == digest_of(base)
    before, after = (
        json.loads((folder / "config.json").read_text()) for folder in (base, tmp_path / "back")
    )
    aside = {"transformers_version", "max_window_layers"}
    assert {k: after.get(k) for k in before.keys() - aside} == {
        k: before[k] for k in before.keys() - aside
    }


def test_sizes_that_the_base_left_to_its_class_are_left_to_it_again(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen2")
    assert "head_dim" not in json.loads((base / "config.json").read_text())
    ungrow(grown(base, UNDONE["a stack"], tmp_path / "grown"), tmp_path / "back")
    assert digest_of(tmp_path / "back") == digest_of(base)
    assert "head_dim" not in json.loads((tmp_path / "back" / "config.json").read_text())


@pytest.mark.parametrize("what", KEPT)
def test_what_rounds_is_refused_by_the_weight_that_is_gone(
    what: str, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    steps, said = KEPT[what]
    folder = grown(make_checkpoint("llama"), steps, tmp_path / "grown")
    with pytest.raises(ModelError, match=said):
        ungrow(folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_an_old_weight_that_moved_is_noticed_and_nothing_is_written(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("llama")
    folder = grown(base, [("hyperclone", {"ffn": 96})], tmp_path / "grown")
    tensors = load_file(folder / WEIGHTS)
    tensors["model.layers.0.mlp.up_proj.weight"][50] += 1
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    assert ungrow(folder, tmp_path / "back").sha256 == digest_of(base), "a new neuron may move"
    tensors["model.layers.0.mlp.up_proj.weight"][5] += 1
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(VerificationError, match=r"of the base is .*: old weights have moved"):
        ungrow(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_lineage_before_the_growth_comes_back_too(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    once = grown(make_checkpoint("llama"), [("stack", {"g": 2})], tmp_path / "once")
    twice = grown(once, [("zero-depth", {"g": 2})], tmp_path / "twice")
    found = ungrow(twice, tmp_path / "back")
    assert (found.beside, found.unproved) == (once, "")
    ours, theirs = (load_file(folder / WEIGHTS) for folder in (tmp_path / "back", once))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    names = [
        json.loads((f / "hfgrow.json").read_text())["chain"] for f in (tmp_path / "back", once)
    ]
    assert [link["steps"] for link in names[0]] == [link["steps"] for link in names[1]]


def test_a_base_in_several_files_is_compared_tensor_by_tensor(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(make_checkpoint("llama", sharded=True), tmp_path / "base"))
    folder = grown(base, [("zero-depth", {"g": 2})], tmp_path / "grown")
    back = call_hfgrow("ungrow", folder, "--out", tmp_path / "back")
    told = " ".join(back.stderr.split())
    assert f"of a file that lies otherwise; every tensor is equal to that in {base}" in told
    ours = load_file(tmp_path / "back" / WEIGHTS)
    theirs = {n: t for file in base.glob("*.safetensors") for n, t in load_file(file).items()}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    tensors = load_file(folder / WEIGHTS)
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(VerificationError, match=r"layers\.0\.mlp\.up_proj\.weight .* of the base"):
        ungrow(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("is_sharded", [True, False])
def test_a_base_that_lay_otherwise_and_is_gone_is_not_called_equal(
    is_sharded: bool, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = grown(make_checkpoint("llama"), [("stack", {"g": 2})], tmp_path / "base")
    if is_sharded:
        shutil.rmtree(base)
        shutil.copytree(make_checkpoint("llama", sharded=True), base)
    folder = grown(base, [("zero-depth", {"g": 2})], tmp_path / "grown")
    shutil.rmtree(base)
    found = ungrow(folder, tmp_path / "back")
    lay = "in \\d+ files, and nobody recorded what lay where"
    if not is_sharded:
        lay = "otherwise in its file of \\d+ bytes, or held tensors that growth leaves out, .*"
    assert re.fullmatch(f"the base lay {lay}", found.unproved)
    assert found.beside is None


def test_a_base_that_lies_otherwise_comes_back_in_its_dtype(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = grown(make_checkpoint("llama", dtype="bfloat16"), UNDONE["a stack"], tmp_path / "base")
    asked = GrowthRequest(model=str(base), steps=[("stack", {"g": 2})], dtype="float32")
    found = ungrow(grow(replace(asked, out=tmp_path / "grown")).out, tmp_path / "back")
    assert found.beside == base
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["dtype"] == "bfloat16"


def test_an_edited_config_is_refused(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    base = make_checkpoint("gemma3_text")
    folder = grown(base, [("zero-depth", {"g": 2})], tmp_path / "grown")
    edit_json(folder / "config.json", num_hidden_layers=7)
    with pytest.raises(ModelError):
        ungrow(folder, tmp_path / "back")


def test_the_command_says_what_it_took_back(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    shutil.copytree(make_checkpoint("llama"), tmp_path / "base")
    grown(tmp_path / "base", [("zero-depth", {"every": 2})], tmp_path / "grown")
    finished = call_hfgrow("ungrow", "./grown", cwd=tmp_path)
    assert finished.stdout == "grown-ungrown\n", finished.stderr
    assert f"{digest_of(tmp_path / 'base')}, equal to that of the base" in finished.stderr
    assert "Took back zero-depth --every 2" in finished.stderr
    again = call_hfgrow("ungrow", "./base", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (3, "")


@pytest.mark.parametrize("is_there", [True, False])
def test_where_no_hash_is_recorded_the_base_is_looked_for(
    is_there: bool, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(make_checkpoint("llama"), tmp_path / "base"))
    request = GrowthRequest(model=str(base), steps=[("zero-depth", {"g": 2})], out=tmp_path / "out")
    folder = grow(request).out
    if is_there:
        tensors = load_file(folder / WEIGHTS)
        tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(VerificationError, match="old weights have moved since growth"):
            ungrow(folder, tmp_path / "back")
        assert not (tmp_path / "back").exists()
    else:
        shutil.rmtree(base)
        found = call_hfgrow("ungrow", folder, "--out", tmp_path / "back")
        told = " ".join(found.stderr.split())
        assert "not compared" in told
        assert "whether an old weight has moved is not known" in told


@pytest.mark.parametrize(
    "arguments",
    [{}, {"top_k": 2}, {"top_k": 2, "drop": 0.5}],
    ids=["copies", "noise on the router", "neurons that begin anew"],
)
def test_more_experts_of_a_mixture_are_taken_back_bit_for_bit(
    arguments: dict[str, object], make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint("qwen2_moe", dtype="bfloat16")
    steps: Steps = [("upcycle", {"experts": 12, **arguments})]
    found = ungrow(grown(base, steps, tmp_path / "grown"), tmp_path / "back")
    assert not found.unproved
    assert found.sha256 == digest_of(tmp_path / "back") == digest_of(base)
    before, after = (read_config(LocalFolder(one))[0] for one in (base, tmp_path / "back"))
    assert {**after, "hfgrow": None} == {**before, "hfgrow": None}


def test_experts_of_a_dense_model_are_not_taken_back(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = grown(make_checkpoint("mistral"), [("upcycle", {"experts": 4})], tmp_path / "grown")
    with pytest.raises(ModelError, match="experts are another family than the base"):
        ungrow(folder, tmp_path / "back")


DERIVED = ("gemma4_text", "granitemoehybrid", "qwen3_5", "bloom")


@pytest.fixture(scope="module", params=DERIVED)
def derived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of a family that transformers tells."""
    return base_of(request.param, tmp_path_factory.mktemp("derived") / "base")


@pytest.mark.parametrize(("operator", "g"), sampled(("zero-depth", "interpolate"), (2, 3)))
def test_a_growth_of_a_derived_family_is_taken_back_bit_for_bit(
    derived: Path, operator: str, g: int, tmp_path: Path
) -> None:
    found = ungrow(grown(derived, [(operator, {"g": g})], tmp_path / "grown"), tmp_path / "back")
    assert not found.unproved
    assert digest_of(tmp_path / "back") == digest_of(derived)
    assert read(LocalFolder(tmp_path / "back")).derived == read(LocalFolder(derived)).derived


def test_of_a_layer_whose_keys_later_ones_take_the_last_copy_stores_them(tmp_path: Path) -> None:
    """The first one is the older, and transformers builds another layer there."""
    base = base_of("gemma3n_text", tmp_path / "base")
    out = grown(base, [("interpolate", {"g": 2})], tmp_path / "grown")
    assert not ungrow(out, tmp_path / "back").unproved
    assert digest_of(tmp_path / "back") == digest_of(base)


def test_a_layer_of_a_derived_family_that_nothing_copies_is_named(tmp_path: Path) -> None:
    out = grown(base_of("olmoe", tmp_path / "base"), [("stack", {"g": 2})], tmp_path / "grown")
    document = json.loads((out / "hfgrow.json").read_text())
    document["chain"][0]["steps"][0]["layer_map"] = [0, 0, 2, 3, 0, 0, 2, 3]
    (out / "hfgrow.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"no layer of the grown model is layer 1 of the base"):
        ungrow(out, tmp_path / "back")
