"""Grown models open by every auto class that knows them, and write the same without a cache."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.reach.prove import base_of
from benchmarks.reach.tiny import probe
from hfgrow.growth.grow import grow
from hfgrow.growth.request import GrowthRequest

# The shapes of Qwen3.5, Gemma 4, Ministral 3 and LFM2 as published; `+` sees too.
_SLOW = ("gemma3+", "gemma4+", "llama4+", "mistral3+", "qwen3_5+")
BASES = ("lfm2", *(pytest.param(name, marks=pytest.mark.slow) for name in _SLOW))
_NUM_TOKENS = 20


def opened(folder: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Load a folder by each auto class that has a class for its type."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    any_config: Any = AutoConfig
    config = any_config.from_pretrained(folder)
    classes: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText)
    return [
        one.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        for one in classes
        if type(config) in one._model_mapping
    ]


def written_by(model: Any, *, use_cache: bool) -> list[int]:
    """Return what a model goes on with, always the most likely token."""
    ids = model.generate(
        probe(),
        max_new_tokens=_NUM_TOKENS,
        min_new_tokens=_NUM_TOKENS,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=None,
    )
    found: list[int] = ids[0, probe().shape[1] :].tolist()
    return found


@pytest.mark.parametrize("operator", ["stack", "zero-depth"])
@pytest.mark.parametrize("name", BASES)
def test_every_class_opens_it_and_writes_the_same_with_and_without_cache(
    name: str, operator: str, tmp_path: Path
) -> None:
    sees = name.endswith("+")
    base, out = base_of(name.removesuffix("+"), tmp_path / "base", whole=sees), tmp_path / "out"
    grow(GrowthRequest(model=str(base), steps=[(operator, {"g": 2})], out=out))
    models = opened(out)
    assert models
    written = []
    for model, report in models:
        assert not report["missing_keys"]
        assert not report["mismatched_keys"]
        # A class of the language model alone leaves out what sees.
        assert all("vision" in key or "multi_modal" in key for key in report["unexpected_keys"])
        written.append(written_by(model, use_cache=True))
        assert written[-1] == written_by(model, use_cache=False)
    assert len(written[0]) == _NUM_TOKENS
    assert all(one == written[0] for one in written)
