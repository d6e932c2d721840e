"""A scan says of every block what transformers says of the model that `partial` grows by it."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.reach.prove import base_of
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.console import Silent
from hfgrow.errors import ModelError, UsageError
from hfgrow.growth.behaviour import opened_tokenizer, probe_text, tokenized
from hfgrow.growth.grow import grow
from hfgrow.growth.request import GrowthRequest
from hfgrow.growth.scan import Scan, pattern_of, scan
from hfgrow.growth.steps import Step
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import apply
from tests.checkpoints import MakeCheckpoint, edit_json, tensors_of, write_tokenizer
from tests.families import EVERY_FAMILY
from tests.program import call_hfgrow

# What computes something of its own: windows, layers without rope, norms behind, a scaled stream.
_DEFAULT = {"llama", "gemma2", "smollm3", "granite"}
FAMILY = [
    pytest.param(one.values[0], marks=() if one.values[0] in _DEFAULT else pytest.mark.slow)
    for one in EVERY_FAMILY
]


def loss_of(folder: Path, sequences: Sequence[Any]) -> float:
    """Measure a model as transformers loads it, in float32."""
    auto_model: Any = AutoModelForCausalLM
    model = auto_model.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        return sum(float(model(t, labels=t).loss) / len(sequences) for t in sequences)


def probe_of(folder: Path, num_tokens: int) -> Any:
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    text, _ = probe_text(folder, None)
    return tokenized(opened_tokenizer(folder), text, vocab_size, Silent())[:, :num_tokens]


def grown(folder: Path, out: Path, *steps: Step) -> Path:
    return grow(GrowthRequest(model=str(folder), steps=list(steps), out=out), Silent()).out


def check_scores(folder: Path, tmp_path: Path, found: Scan, blocks: Sequence[int]) -> None:
    tokens = [probe_of(folder, found.num_tokens)]
    assert found.base_loss == loss_of(folder, tokens)
    for i in blocks:
        block = found.blocks[i]
        out = grown(folder, tmp_path / str(i), ("partial", {"pattern": block.pattern}))
        assert block.loss == loss_of(out, tokens), block


@pytest.fixture
def model(tmp_path: Path, make_checkpoint: MakeCheckpoint) -> Path:
    """A tiny Llama with a tokenizer that the test may change."""
    return Path(shutil.copytree(make_checkpoint(tokenizer=True), tmp_path / "model"))


@pytest.mark.parametrize("model_type", FAMILY)
def test_scores_are_the_losses_of_grown_models_to_the_last_bit(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, model_type: str
) -> None:
    folder = make_checkpoint(model_type, tokenizer=True)
    found = scan(folder, Silent(), max_block=3, tokens=20)
    assert len(found.blocks) == 4 + 3 + 2
    check_scores(folder, tmp_path, found, (0, 4, -1))


def test_blocks_of_a_model_in_bfloat16_are_told_apart_in_float32(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = make_checkpoint("qwen3", tokenizer=True, dtype="bfloat16")
    check_scores(folder, tmp_path, scan(folder, Silent(), max_block=1, tokens=20), (0, -1))


@pytest.mark.parametrize("model_type", ["lfm2", "olmoe"])
def test_a_derived_family_is_scanned_where_its_layers_share_the_stream_alone(
    tmp_path: Path, model_type: str
) -> None:
    folder = base_of(model_type, tmp_path / "base")
    write_tokenizer(folder)
    check_scores(folder, tmp_path, scan(folder, Silent(), max_block=2, tokens=20), (0, -1))


def test_layers_that_share_more_than_the_stream_are_refused(tmp_path: Path) -> None:
    folder = base_of("gemma4_text", tmp_path / "base")
    write_tokenizer(folder)
    said = (
        "^the layers of a gemma4_text hand each other more than the residual stream, so they "
        "cannot be repeated one by one in memory$"
    )
    with pytest.raises(ModelError, match=said):
        scan(folder, Silent(), tokens=20)


def test_all_blocks_up_to_the_largest_are_scored_the_best_first(model: Path) -> None:
    found = scan(model, Silent(), max_block=9, tokens=20)
    every = {(i, j) for i in range(4) for j in range(i + 1, 5)}
    assert {(block.start, block.stop) for block in found.blocks} == every
    losses = [block.loss for block in found.blocks]
    assert losses == sorted(losses)
    assert [block.num_layers for block in found.best_by_size] == [1, 2, 3, 4]


def test_the_same_scan_gives_the_same_numbers_and_writes_nothing(model: Path) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    assert scan(model, Silent(), tokens=20) == scan(model, Silent(), tokens=20)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.mark.parametrize("num_layers", [1, 4])
def test_a_pattern_stands_for_its_block_in_partial(
    make_checkpoint: MakeCheckpoint, num_layers: int
) -> None:
    plan = read(LocalFolder(make_checkpoint(num_hidden_layers=num_layers)))
    for start in range(num_layers):
        for stop in range(start + 1, num_layers + 1):
            planned = apply(plan, "partial", {"pattern": pattern_of(start, stop, num_layers)})
            found = [source.layer for source in planned.layer_map]
            assert found == [*range(stop), *range(start, num_layers)]


def test_text_longer_than_the_positions_is_read_in_sequences(
    make_checkpoint: MakeCheckpoint,
) -> None:
    """The loss is the mean over whole sequences; what is left of the text is not read."""
    folder = make_checkpoint(tokenizer=True, max_position_embeddings=16)
    found = scan(folder, Silent(), max_block=1, tokens=45)
    sequences = probe_of(folder, 32).reshape(2, 1, 16)
    assert found.num_tokens == 32
    assert found.base_loss == loss_of(folder, sequences)


def test_every_sequence_of_gemma_begins_with_the_beginning_of_text(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    made = make_checkpoint("gemma", tokenizer=True, max_position_embeddings=16)
    folder = Path(shutil.copytree(made, tmp_path / "model"))
    edit_json(folder / "tokenizer_config.json", bos_token="a")
    plain = probe_of(folder, 32).reshape(2, 1, 16)
    sequences = plain.clone()
    sequences[..., 0] = opened_tokenizer(folder).bos_token_id
    found = scan(folder, Silent(), max_block=1, tokens=45)
    assert found.base_loss == loss_of(folder, sequences)
    assert found.base_loss != loss_of(folder, plain)


def test_a_damped_whole_is_what_partial_and_branch_scale_make(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """Twice as deep, and every branch times l / L: a half."""
    folder = make_checkpoint("glm4", tokenizer=True)
    found = scan(folder, Silent(), damped=True, tokens=20)
    (block,) = (block for block in found.blocks if block.num_layers == 4)
    partial: Step = ("partial", {"pattern": block.pattern})
    out = grown(folder, tmp_path / "out", partial, ("branch-scale", {"exponent": 1.0}))
    assert block.loss == loss_of(out, [probe_of(folder, 20)])
    assert found.base_loss == loss_of(folder, [probe_of(folder, 20)])


def test_a_damped_block_is_what_partial_and_damped_repeats_make(
    model: Path, tmp_path: Path
) -> None:
    """Both passes through it add half; biases are a part of what a branch adds."""
    found = scan(model, Silent(), damped=True, max_block=2, tokens=20)
    for block in found.blocks[:4]:
        partial: Step = ("partial", {"pattern": block.pattern})
        damped: Step = ("branch-scale", {"exponent": 1.0, "repeats": True})
        out = grown(model, tmp_path / block.pattern, partial, damped)
        assert block.loss == loss_of(out, [probe_of(model, 20)])


def test_damped_gains_of_gemma_in_bfloat16_are_those_of_the_growth_but_for_rounding(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """Gemma stores gains less 1, which the growth rounds when it halves them; a scan does not."""
    folder = make_checkpoint("gemma2", tokenizer=True, dtype="bfloat16")
    found = scan(folder, Silent(), damped=True, max_block=1, tokens=20)
    for block in (found.blocks[0], found.blocks[-1]):
        partial: Step = ("partial", {"pattern": block.pattern})
        damped: Step = ("branch-scale", {"exponent": 1.0, "repeats": True})
        out = grown(folder, tmp_path / block.pattern, partial, damped)
        loss = loss_of(out, [probe_of(folder, 20)])
        assert block.loss == pytest.approx(loss, abs=5e-3)


@pytest.mark.parametrize("model_type", [n for n, f in FAMILIES.items() if f.has_experts][:1])
def test_what_is_damped_must_be_known(make_checkpoint: MakeCheckpoint, model_type: str) -> None:
    folder = make_checkpoint(model_type, tokenizer=True)
    said = f"^damped needs to know which modules of a layer of a {model_type} end a branch, and "
    with pytest.raises(UsageError, match=f"{said}hfgrow does not$"):
        scan(folder, Silent(), damped=True)


def test_a_block_that_overflows_is_the_last_and_has_no_number(model: Path) -> None:
    """A layer that adds 2e38 to a stream of float32, twice."""
    from safetensors.torch import save_file

    tensors = tensors_of(model)
    tensors["model.layers.3.mlp.down_proj.bias"][:] = 2e38
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    found = scan(model, Silent(), max_block=1, tokens=20)
    assert math.isfinite(found.base_loss)
    assert found.blocks[-1].start == 3
    assert found.blocks[-1].loss == math.inf
    assert found.to_json()["blocks"][-1]["loss"] is None


def test_a_base_without_a_finite_loss_is_refused(model: Path) -> None:
    from safetensors.torch import save_file

    tensors = tensors_of(model)
    tensors["model.norm.weight"][0] = math.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"^the base has no finite loss$"):
        scan(model, Silent(), tokens=20)


def test_a_model_without_a_tokenizer_is_refused(make_checkpoint: MakeCheckpoint) -> None:
    """A ranking by random tokens would say nothing."""
    said = "^base has no tokenizer, and blocks are measured on text$"
    with pytest.raises(ModelError, match=said):
        scan(make_checkpoint("qwen2"), Silent())


def test_the_command_prints_tables_a_pattern_to_paste_and_one_document(model: Path) -> None:
    shown = call_hfgrow("scan", model, "--tokens", "20", "--max-block", "2")
    assert shown.returncode == 0, shown.stderr
    told = call_hfgrow("scan", model, "--tokens", "20", "--max-block", "2", "--json")
    document = json.loads(told.stdout)
    assert (told.returncode, told.stderr) == (0, "")
    assert document["best"] == document["blocks"][0]
    assert (len(document["blocks"]), document["num_tokens"], document["damped"]) == (7, 20, False)
    pattern = document["best"]["pattern"]
    assert f"Next: hfgrow partial {model} '{pattern}'" in shown.stderr
    assert "Scanning 7 blocks of up to 2 of 4 layers on 20 tokens of a probe text" in shown.stderr
    first, last = document["best"]["first_layer"], document["best"]["last_layer"]
    assert pattern == pattern_of(first, last + 1, 4)
    layers = str(first) if first == last else f"{first}-{last}"
    assert re.search(rf"^{layers} .* {re.escape(pattern)}$", shown.stdout, re.MULTILINE)
    assert "layers are counted from 0; a pattern of hfgrow partial" in shown.stdout
    assert f"{document['best']['loss']:.4f}" in shown.stdout


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_a_scan_can_be_drawn(model: Path, tmp_path: Path, name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    words = ("scan", "model", "--tokens", "20", "--plot", name)
    done = call_hfgrow(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    again = call_hfgrow(*words, cwd=tmp_path)
    assert (again.returncode, again.stderr.splitlines()[0]) == (
        7,
        f"Error: the picture {name} is there already",
    )
    assert call_hfgrow(*words, "--overwrite", cwd=tmp_path).returncode == 0
    assert (tmp_path / name).read_bytes() == first


def test_a_file_of_text_and_wrong_numbers_are_told_in_the_words_of_the_command(
    model: Path, tmp_path: Path
) -> None:
    for words, code, said in (
        (("--text", tmp_path / "no.txt"), 2, "cannot read the text"),
        (("--tokens", "1"), 2, "--tokens must be at least 2, not 1: one is predicted"),
        (("--max-block", "0"), 2, "Invalid value for '--max-block'"),
        (("--plot", "a.pdf"), 2, "--plot a.pdf must end in .png or .svg"),
    ):
        done = call_hfgrow("scan", model, *words)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_the_text_of_the_demo_is_taken_by_its_name(model: Path) -> None:
    done = call_hfgrow("scan", model, "--text", "demo", "--tokens", "20", "--max-block", "1")
    assert "of up to 1 of 4 layers on 20 tokens of the given text" in done.stderr


def test_positions_may_be_left_out_of_the_config(model: Path) -> None:
    edit_json(model / "config.json", max_position_embeddings=...)
    assert scan(model, Silent(), max_block=1, tokens=20).num_tokens == 20


def test_blocks_have_at_least_one_layer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_block must be at least 1, not 0"):
        scan(tmp_path, Silent(), max_block=0)


def test_a_text_of_one_token_is_too_short(model: Path) -> None:
    with pytest.raises(ModelError, match="fewer than 2 tokens of the probe text"):
        scan(model, Silent(), text="a")
