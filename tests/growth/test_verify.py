"""verify and reproduce, through the command line.

Headers against the plan, bytes against the base.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import hfgrow
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.layout import lay_out
from hfgrow.checkpoint.read import read
from hfgrow.checkpoint.staging import staged
from hfgrow.checkpoint.write import write
from hfgrow.errors import ModelError, VerificationError
from hfgrow.growth.verify import check_headers, check_provenance
from hfgrow.plan.operators import apply
from hfgrow.plan.operators.stacking import stack
from hfgrow.plan.plan import GrowthPlan
from tests.attacks.craft import add_tensor, drop_tensors, read_raw, rename_tensors
from tests.checkpoints import MakeCheckpoint, copied_models, edit_json, load
from tests.program import Finished, call_hfgrow


@pytest.fixture(scope="module")
def made(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, `once` grown from it in shards, and `twice` grown from `once`."""
    folder = tmp_path_factory.mktemp("proof")
    shutil.copytree(make_checkpoint("smollm3", tokenizer=True), folder / "base")
    for words in (
        ("stack", "base", "--g", "2", "--max-shard-size", "60KB", "--out", "once"),
        ("interpolate", "once", "--layers", "12", "--dtype", "bfloat16", "--out", "twice"),
        ("partial", "base", "12-34*2", "--verify", "--out", "measured"),
    ):
        finished = call_hfgrow(*words, cwd=folder)
        assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """The same in a folder that the test may change; the notes of the bases' places follow."""
    return copied_models(made, tmp_path / "work")


def flip(path: Path, at: int = -1) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def second_shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[1]


def verify(folder: Path, *more: str) -> Finished:
    return call_hfgrow("verify", folder, *more)


def measured_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "hfgrow.json").read_text())
    found: dict[str, Any] = content["chain"][-1]["measured"]
    return found


@pytest.mark.parametrize("name", ["once", "twice", "measured"])
def test_a_good_model_is_verified(made: Path, name: str) -> None:
    finished = verify(made / name, "--json")
    assert finished.returncode == 0, finished.stdout
    document = json.loads(finished.stdout)
    assert document["ok"] is True
    assert document["provenance"]["num_tensors"] == document["num_transformers_tensors"]
    converted = document["provenance"]["num_computed"]
    assert converted == (document["provenance"]["num_tensors"] if name == "twice" else 0)


def test_a_flipped_byte_fails_the_verification(work: Path) -> None:
    flip(second_shard(work / "once"))
    finished = verify(work / "once")
    assert finished.returncode == 9
    assert "differs from" in finished.stderr


def test_an_edited_config_fails_the_verification(work: Path) -> None:
    edit_json(work / "once" / "config.json", no_rope_layers=[1] * 8)
    finished = verify(work / "once")
    assert finished.returncode == 9
    assert "no_rope_layers" in finished.stderr


def test_a_lost_shard_fails_the_verification(work: Path) -> None:
    second_shard(work / "once").unlink()
    assert verify(work / "once").returncode == 9


def test_a_base_that_moved_is_asked_for(work: Path) -> None:
    (work / "base").rename(work / "moved")
    finished = verify(work / "once")
    assert finished.returncode == 3
    assert "--base" in finished.stderr
    assert verify(work / "once", "--base", str(work / "moved")).returncode == 0


def test_a_layer_map_that_was_edited_is_refused(work: Path) -> None:
    path = work / "once" / "hfgrow.json"
    content = json.loads(path.read_text())
    content["chain"][0]["steps"][0]["layer_map"].reverse()
    path.write_text(json.dumps(content))
    finished = verify(work / "once")
    assert finished.returncode == 3
    assert "another layer map" in finished.stderr


def test_a_model_without_lineage_cannot_be_verified(work: Path) -> None:
    finished = verify(work / "base")
    assert finished.returncode == 3
    assert "was not grown by hfgrow" in finished.stderr


def test_the_demo_is_named_as_it_was_typed() -> None:
    for command in ("verify", "lineage"):
        said = call_hfgrow(command, "demo").stderr
        assert "Error: demo has no hfgrow.json: it was not grown by hfgrow\n" in said


@pytest.mark.case("I2")
def test_the_measurement_is_what_transformers_says(made: Path) -> None:
    """I2: the loss and the logits of base and grown model on the probe text."""
    from transformers import AutoTokenizer

    import hfgrow

    text = (Path(hfgrow.__file__).parent / "growth" / "probe.txt").read_text()
    tokenizer: Any = AutoTokenizer.from_pretrained(made / "base")
    tokens = tokenizer(text, return_tensors="pt").input_ids[:, :512]
    with torch.inference_mode():
        base, grown = (load(made / name)[0](tokens, labels=tokens) for name in ("base", "measured"))
    found = measured_of(made / "measured")
    assert found["num_tokens"] == 512
    assert found["base_loss"] == pytest.approx(base.loss.item(), abs=1e-4)
    assert found["grown_loss"] == pytest.approx(grown.loss.item(), abs=1e-4)
    difference = (base.logits - grown.logits).abs()
    assert found["max_abs_dlogit"] == pytest.approx(difference.max().item(), abs=1e-3)
    assert found["mean_abs_dlogit"] == pytest.approx(difference.mean().item(), abs=1e-3)
    assert found["max_abs_logit"] == pytest.approx(base.logits.abs().max().item(), abs=1e-3)
    one, two = (out.logits[0].log_softmax(-1) for out in (base, grown))
    kl = torch.nn.functional.kl_div(two, one, log_target=True, reduction="batchmean").item()
    assert found["mean_kl"] == pytest.approx(kl, rel=1e-3)


def test_a_verified_growth_records_the_hash_of_every_weight_file(made: Path) -> None:
    link = json.loads((made / "measured" / "hfgrow.json").read_text())["chain"][0]
    for folder, files in (("base", link["base"]["files"]), ("measured", link["result"]["files"])):
        for name, file in files.items():
            raw = (made / folder / name).read_bytes()
            assert file == {"nbytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def test_a_base_without_a_tokenizer_is_measured_on_random_tokens(
    base: Path, tmp_path: Path
) -> None:
    finished = call_hfgrow("stack", base, "--g", "2", "--verify", "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert measured_of(tmp_path / "out")["text"] == "random tokens"


def test_a_broken_tokenizer_is_told_and_random_tokens_are_measured(
    base: Path, tmp_path: Path
) -> None:
    (base / "tokenizer.json").write_text("{}")
    finished = call_hfgrow("stack", base, "--g", "2", "--verify", "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert "the tokenizer cannot be loaded" in finished.stderr
    assert "random tokens" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", ["once", "twice", "measured"])
def test_reproducing_gives_the_same_hashes(work: Path, name: str) -> None:
    finished = call_hfgrow("reproduce", work / name, "--json", cwd=work)
    assert finished.returncode == 0, finished.stdout
    assert json.loads(finished.stdout)["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (work / name).glob("*.safetensors")
    }
    assert sorted(path.name for path in work.iterdir()) == ["base", "measured", "once", "twice"]


@pytest.mark.parametrize("changed", ["base/model.safetensors", "measured/model.safetensors"])
def test_a_difference_fails_the_reproduction(work: Path, changed: str) -> None:
    if changed.startswith("measured"):
        # Its own hash is recorded; what changed after growth shows in a comparison with the disk.
        content = json.loads((work / "measured" / "hfgrow.json").read_text())
        del content["chain"][0]["result"]["files"]["model.safetensors"]["sha256"]
        (work / "measured" / "hfgrow.json").write_text(json.dumps(content))
    flip(work / changed)
    finished = call_hfgrow("reproduce", work / "measured", cwd=work)
    assert finished.returncode == 9
    assert "sha256" in finished.stderr


def test_a_file_of_another_size_is_not_the_recorded_one(work: Path) -> None:
    os.truncate(work / "measured" / "model.safetensors", 1 << 40)
    finished = call_hfgrow("reproduce", work / "measured", cwd=work)
    assert finished.returncode == 9
    assert "is not the file that hfgrow.json records" in finished.stderr


def test_a_reproduction_can_be_kept(work: Path) -> None:
    finished = call_hfgrow("reproduce", work / "twice", "--out", work / "again", cwd=work)
    assert finished.returncode == 0, finished.stderr
    again, twice = (work / n / "model.safetensors" for n in ("again", "twice"))
    assert again.read_bytes() == twice.read_bytes()


def test_a_reproduction_does_not_replace_a_folder(work: Path) -> None:
    finished = call_hfgrow("reproduce", work / "twice", "--out", work / "once", cwd=work)
    assert finished.returncode == 7
    assert finished.stderr.splitlines()[-1] == "Hint: choose another --out DIR"


def test_the_root_of_a_reproduction_may_have_moved(work: Path) -> None:
    (work / "base").rename(work / "moved")
    assert call_hfgrow("reproduce", work / "twice", cwd=work).returncode == 3
    finished = call_hfgrow("reproduce", work / "twice", "--root", work / "moved", cwd=work)
    assert finished.returncode == 0, finished.stderr


def test_several_steps_in_one_pass_are_proved_and_reproduced(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps: list[tuple[str, dict[str, object]]] = [("stack", {"g": 2}), ("interpolate", {"g": 2})]
    base = make_checkpoint("qwen2")
    growth = hfgrow.grow(hfgrow.GrowthRequest(model=str(base), steps=steps, out=Path("out")))
    assert growth.plan.sources == tuple(i // 2 % 4 for i in range(16))
    provenance = hfgrow.verify(growth.out).provenance
    assert provenance is not None
    assert provenance.num_tensors == len(growth.plan.tensors)
    assert list(hfgrow.reproduce("./out")) == ["model.safetensors"]
    card = (growth.out / "README.md").read_text()
    comment = '# steps.yaml: [{"stack": {"g": 2}}, {"interpolate": {"g": 2}}]'
    assert f"hfgrow apply steps.yaml base  {comment}\n" in card


WEIGHTS = "model.safetensors"
ONE, OTHER = (f"model.layers.{i}.self_attn.q_proj.weight" for i in (1, 2))


@pytest.fixture
def plan(base: Path) -> GrowthPlan:
    return stack(read(LocalFolder(base)), g=2)


@pytest.fixture
def out(plan: GrowthPlan, tmp_path: Path) -> Path:
    with staged(tmp_path / "out") as staging:
        write(plan, lay_out(plan), staging)
    return tmp_path / "out"


def test_a_written_model_is_proved_tensor_by_tensor(plan: GrowthPlan, out: Path) -> None:
    counted: list[int] = []
    found = check_provenance(out, plan, advance=counted.append)
    assert (found.num_tensors, found.num_computed) == (len(plan.tensors), 0)
    assert sum(counted) == found.nbytes == plan.nbytes


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [("stack", {"g": 2}), ("zero-depth", {"g": 2}), ("hyperclone-noisy", {"ffn": 72})],
    ids=str,
)
def test_a_file_system_that_reads_in_short_pieces_changes_no_verdict(
    operator: str,
    arguments: dict[str, int],
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grown = apply(read(LocalFolder(base)), operator, arguments)
    with staged(tmp_path / "out") as staging:
        write(grown, lay_out(grown), staging)
    preadv = os.preadv

    def short(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        return preadv(descriptor, [buffers[0][:1000]], offset)

    monkeypatch.setattr(os, "preadv", short)
    check_provenance(tmp_path / "out", grown)


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


def test_two_swapped_layers_of_a_sharded_stack_are_found_by_their_bytes(work: Path) -> None:
    """No logits could tell: a stack promises none."""
    shards = {path: load_file(path) for path in sorted((work / "once").glob("*.safetensors"))}
    assert len(shards) > 1
    whole = {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}
    other = {"0": "1", "1": "0"}
    for path, tensors in shards.items():
        swapped = {}
        for name in tensors:
            words = name.split(".")
            if words[:2] == ["model", "layers"]:
                words[2] = other.get(words[2], words[2])
            swapped[name] = whole[".".join(words)]
        save_file(swapped, path, metadata={"format": "pt"})
    finished = verify(work / "once")
    assert finished.returncode == 9
    assert re.search(r"model\.layers\.[01]\.\S+ differs from model\.layers", finished.stderr)


def test_two_swapped_tensors_are_found(plan: GrowthPlan, out: Path) -> None:
    rename_tensors(out / WEIGHTS, {ONE: OTHER, OTHER: ONE})
    with pytest.raises(VerificationError, match="differs from"):
        check_provenance(out, plan)


def test_another_base_is_found(plan: GrowthPlan, out: Path, base: Path) -> None:
    weights = base / WEIGHTS
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)
    plan = replace(plan, files=read(LocalFolder(base)).files)
    with pytest.raises(VerificationError, match="the base"):
        check_provenance(out, plan)


@pytest.mark.case("A25")
@pytest.mark.parametrize("where", ["base", "out"])
def test_a_file_that_changes_while_it_is_compared_is_not_verified(
    plan: GrowthPlan, out: Path, base: Path, where: str
) -> None:
    changed = {"base": base, "out": out}[where] / WEIGHTS
    with pytest.raises(ModelError, match=rf"^the input changed while it was read: {WEIGHTS}$"):
        check_provenance(out, plan, advance=lambda nbytes: os.utime(changed, ns=(1, 1)))


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
    with pytest.raises(ModelError, match=rf"^the input changed while it was read: {WEIGHTS}$"):
        check_provenance(out, plan)


def test_a_model_by_its_short_name_was_not_grown() -> None:
    done = call_hfgrow("verify", "demo")
    assert done.returncode == 3
    assert "has no hfgrow.json: it was not grown by hfgrow" in done.stderr
