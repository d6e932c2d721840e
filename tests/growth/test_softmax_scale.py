"""head-dim on Gemma 3: the scale of the attention logits follows head_dim, and nothing changes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.plan.operators.padding import head_dim
from tests.checkpoints import MakeCheckpoint, edit_json, load, logits
from tests.program import call_hfgrow


@pytest.fixture
def gemma3(tmp_path: Path, make_checkpoint: MakeCheckpoint) -> Path:
    """A tiny Gemma 3 whose query_pre_attn_scalar is its head_dim, 16, as published ones have it."""
    base = make_checkpoint("gemma3_text", query_pre_attn_scalar=16, dtype="float64")
    return Path(shutil.copytree(base, tmp_path / "base"))


def grown(base: Path, *more: str) -> Path:
    out = base.parent / "grown"
    done = call_hfgrow("head-dim", base, "--factor", "2", *more, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def scalar_of(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())["query_pre_attn_scalar"]


def test_the_scale_follows_and_the_logits_stay(gemma3: Path) -> None:
    out = grown(gemma3)
    assert scalar_of(out) == 32
    one, two = (logits(load(folder)[0]) for folder in (gemma3, out))
    assert torch.allclose(one, two, rtol=0, atol=1e-5)


def test_the_scale_can_be_kept(gemma3: Path) -> None:
    assert scalar_of(grown(gemma3, "--softmax-scale", "kept")) == 16


def test_a_scale_that_was_another_stays(make_checkpoint: MakeCheckpoint) -> None:
    plan = head_dim(read(LocalFolder(make_checkpoint("gemma3_text"))), factor=2)
    assert plan.config["query_pre_attn_scalar"] == 20


def test_a_model_grown_before_the_scale_followed_is_verified(gemma3: Path) -> None:
    out = grown(gemma3, "--softmax-scale", "kept")
    manifest = json.loads((out / "hfgrow.json").read_text())
    del manifest["chain"][0]["steps"][0]["arguments"]["softmax_scale"]
    edit_json(out / "hfgrow.json", chain=manifest["chain"])
    done = call_hfgrow("verify", out)
    assert done.returncode == 0, done.stderr
