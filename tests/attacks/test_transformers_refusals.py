"""A config that transformers refuses is the base's fault, and is told as that, with the reason."""

from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import ModelError
from hfgrow.train.stage import load_model
from tests.checkpoints import edit_json, load
from tests.program import call_hfgrow

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"hidden_act": "no-such"}, "KeyError: 'no-such'"),
    ({"rope_parameters": {"rope_type": "no-such", "rope_theta": 1e4}}, "KeyError: 'no-such'"),
    ({"attention_dropout": "much"}, "attention_dropout"),
    ({"pad_token_id": 99_999_999}, "Padding_idx"),
    ({"id2label": 5}, "'int' object has no attribute 'items'"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "logits are not finite"),
)


@pytest.mark.case("C17", "C18")
@pytest.mark.parametrize(("changes", "reason"), REFUSED, ids=str)
def test_a_base_that_transformers_refuses_is_named_with_the_reason(
    base: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_json(base / "config.json", **changes)
    out = tmp_path / "out"
    finished = call_hfgrow("stack", base, "--g", "2", "--verify", "--out", out)
    assert finished.returncode == 3, finished.stderr
    assert "Error: config.json: transformers refuses it: " in finished.stderr or (
        "Error: the base: " in finished.stderr
    )
    assert reason in finished.stderr
    assert "staging" not in finished.stderr
    assert not out.exists()


@pytest.mark.case("C19")
@pytest.mark.parametrize(
    "key", ["attn_implementation", "_attn_implementation", "experts_implementation"]
)
def test_how_somebody_ran_a_base_does_not_keep_it_from_being_measured_or_trained(
    base: Path, tmp_path: Path, key: str
) -> None:
    """A published config may ask for FlashAttention, which is not installed here."""
    edit_json(base / "config.json", **{key: "flash_attention_2"})
    out = tmp_path / "out"
    finished = call_hfgrow("stack", base, "--g", "2", "--verify", "--out", out)
    assert finished.returncode == 0, finished.stderr
    load(out)
    load_model(base)


def test_a_model_that_cannot_be_trained_is_told_with_the_reason(base: Path) -> None:
    edit_json(base / "config.json", hidden_act="no-such")
    with pytest.raises(ModelError, match="cannot load base: KeyError: 'no-such'"):
        load_model(base)
