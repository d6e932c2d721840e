"""`hfgrow eval`: what it says is what transformers computes, and models compare by bytes."""

import json
import re
import shutil
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.checkpoints import MakeCheckpoint, edit_json
from tests.program import call_hfgrow

LENGTH = 24
TEXT = "The cat sat on the mat. It saw a dog, and ran up a tree. " * 8 + "So it sat."


def write_tokenizer(folder: Path, pieces: list[str]) -> None:
    """Save a tokenizer of these pieces, the longest first, and an end of text."""
    vocab = {"<unk>": 0, "<eos>": 1} | {piece: i + 2 for i, piece in enumerate(pieces)}
    scores: list[tuple[str, float]] = [(piece, -float(i > 1)) for piece, i in vocab.items()]
    fast: Any = PreTrainedTokenizerFast
    tokens = Tokenizer(models.Unigram(scores, unk_id=0))
    fast(tokenizer_object=tokens, unk_token="<unk>", eos_token="<eos>").save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> Path:
    """Two models, of which one has letters and one pairs of them, and a text."""
    folder = tmp_path_factory.mktemp("eval")
    letters = sorted(set(TEXT))
    pairs = sorted({TEXT[i : i + 2] for i in range(0, len(TEXT), 2)})
    for name, pieces in (("letters", letters), ("pairs", [*letters, *pairs][:62])):
        shutil.copytree(make_checkpoint(traits=False), folder / name)
        write_tokenizer(folder / name, pieces)
    shutil.copytree(make_checkpoint(), folder / "bare")
    (folder / "text.txt").write_text(TEXT)
    (folder / "blank.txt").write_text(" \n")
    return folder


def by_transformers(folder: Path, text: str) -> tuple[float, int]:
    """Return the nats of all tokens and how many: windows of LENGTH, each token predicted once."""
    auto_model, auto_tokenizer = AutoModelForCausalLM, AutoTokenizer
    model: Any = auto_model.from_pretrained(folder)
    ids = [*auto_tokenizer.from_pretrained(folder)(text).input_ids, 1]
    total = 0.0
    for start in range(0, len(ids) - 1, LENGTH):
        window = torch.tensor([ids[start : start + LENGTH + 1]])
        with torch.no_grad():
            logs = model(window[:, :-1]).logits[0].double().log_softmax(-1)
        total -= float(logs.gather(-1, window[0, 1:, None]).sum())
    return total, len(ids) - 1


def measured(place: Path, *words: str) -> list[dict[str, Any]]:
    found = call_hfgrow("eval", *words, "--text", "text.txt", "--json", cwd=place)
    assert found.returncode == 0, found.stdout + found.stderr
    rows: list[dict[str, Any]] = json.loads(found.stdout)["texts"][0]["models"]
    return rows


def test_what_is_measured_is_what_transformers_computes(place: Path) -> None:
    rows = measured(place, "letters", "pairs", "--sequence-length", str(LENGTH))
    assert [row["model"] for row in rows] == ["letters", "pairs"]
    for row in rows:
        nats, count = by_transformers(place / row["model"], TEXT)
        assert row["num_tokens"] == count
        assert row["loss"] == pytest.approx(nats / count, abs=1e-5)
        assert row["perplexity"] == pytest.approx(exp(nats / count), rel=1e-5)
        nbytes = len(TEXT) * count / (count + 1)
        assert row["bits_per_byte"] == pytest.approx(nats / log(2) / nbytes, rel=1e-5)


def test_models_with_other_tokens_are_measured_on_the_same_bytes(place: Path) -> None:
    rows = measured(place, "letters", "pairs", "--tokens", "200")
    assert rows[0]["num_tokens"] == 200
    assert rows[1]["num_tokens"] < 150
    # As nearly as the tokens of the second go.
    assert abs(rows[0]["num_bytes"] - rows[1]["num_bytes"]) <= 3
    swapped = measured(place, "pairs", "letters", "--tokens", "100")
    assert np.ptp([row["num_bytes"] for row in swapped]) <= 3


def test_a_model_does_not_depend_on_what_stands_beside_it(place: Path) -> None:
    alone = measured(place, "letters")
    beside = measured(place, "letters", "pairs", "--tokenizer", "letters")
    assert alone[0] == beside[0]
    assert beside[1]["num_tokens"] == beside[0]["num_tokens"]


def test_the_base_stands_before_what_grew_from_it(place: Path) -> None:
    grown = call_hfgrow("zero-depth", "letters", "--g", "2", "--out", "grown", cwd=place)
    assert grown.returncode == 0
    rows = measured(place, "grown", "--with-base")
    assert [row["model"] for row in rows] == ["letters", "grown"]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], abs=1e-5)
    table = call_hfgrow("eval", "grown", "--with-base", "--text", "text.txt", cwd=place)
    assert table.stdout.startswith("text text.txt, 512 tokens seen together\n")
    assert [line.split()[0] for line in table.stdout.splitlines()] == [
        "text",
        "model",
        "letters",
        "grown",
    ]


def test_it_says_what_it_costs_and_how_far_it_is_within_a_batch(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FIRST_S", "_INTERVAL_S", "_SHARE"):
        monkeypatch.setattr(f"hfgrow.console.{name}", 0.0)
    words = ("--text", "text.txt", "--sequence-length", str(LENGTH))
    said = call_hfgrow("eval", "letters", *words, cwd=place).stderr
    cost = r"Measuring letters on (\d+) tokens, \S+ FLOPs: about 1 s on free cores"
    found = re.search(cost, said)
    assert found is not None, said
    total = int(found[1])
    done = [int(n) for n in re.findall(rf"letters, tokens: (\d+) of {total}\b", said)]
    # The text is one batch: a line behind each of 4 layers.
    assert len(done) == 4
    assert 0 < done[0] < done[1] < done[2] < done[3] < total


def test_a_text_that_is_too_short_to_compare_by_is_named(place: Path) -> None:
    (place / "short.txt").write_text("a")
    found = call_hfgrow("eval", "letters", "--text", "short.txt", cwd=place)
    assert found.returncode == 0
    assert "Note: tokens to predict of short.txt: 1; a loss of fewer than 1,000" in found.stderr


MISTAKES: dict[str, tuple[int, tuple[str, ...], str]] = {
    "no text": (2, ("letters",), "no text to measure on"),
    "no such text": (2, ("letters", "--text", "nowhere.txt"), "no file or folder"),
    "a blank text": (8, ("letters", "--text", "blank.txt"), "blank.txt"),
    "no tokenizer": (3, ("bare", "--text", "text.txt"), "no tokenizer"),
    "too long": (
        2,
        ("letters", "--text", "text.txt", "--sequence-length", "513"),
        "letters: sequence_length 513 is above",
    ),
    "no such device": (2, ("letters", "--text", "text.txt", "--device", "abacus"), "abacus"),
    "no such model": (2, ("./nowhere", "--text", "text.txt"), "nowhere"),
    "no number": (2, ("letters", "--text", "text.txt", "--tokens", "many"), "--tokens"),
    "name of a file": (2, ("letters", "--text", "text.txt", "--name", "x"), "--name"),
    "a revision of two": (
        2,
        ("letters", "pairs", "--text", "text.txt", "--revision", "main"),
        "--revision",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(place: Path, mistake: str) -> None:
    code, words, said = MISTAKES[mistake]
    found = call_hfgrow("eval", *words, cwd=place)
    assert (found.returncode, found.stdout) == (code, "")
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert said in line
    as_json = json.loads(call_hfgrow("eval", *words, "--json", cwd=place).stdout)
    assert as_json["error"]["exit_code"] == code


def test_tokens_that_the_model_does_not_have_are_refused(
    place: Path, tmp_path: Path, make_checkpoint: MakeCheckpoint
) -> None:
    words = ("eval", make_checkpoint(traits=False, vocab_size=20), "--tokenizer", place / "pairs")
    found = call_hfgrow(*words, "--text", place / "text.txt", cwd=tmp_path)
    assert found.returncode == 3, found.stderr
    assert found.stderr.count("Error: ") == 1


def test_a_model_without_a_finite_loss_is_refused(place: Path, base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    words = ("eval", base, "--tokenizer", place / "letters", "--text", place / "text.txt")
    found = call_hfgrow(*words)
    assert found.returncode == 3
    assert "has no finite loss" in found.stderr


def test_a_model_that_lost_its_weights_is_refused(place: Path, base: Path) -> None:
    edit_json(base / "config.json", num_hidden_layers=3)
    words = ("eval", base, "--tokenizer", place / "letters", "--text", place / "text.txt")
    assert call_hfgrow(*words).returncode == 3
