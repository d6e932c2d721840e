"""Growths of released models: what docs/growths.md says of each is what hfgrow plans.

The bases are headers of the published shapes, with holes for weights.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from hfgrow.growth.steps import read_steps
from hfgrow.train.recipe.files import shipped_recipes
from tests.program import call_hfgrow
from tests.skeletons import write_sparse

GROWTHS = shipped_recipes("growths")
PAGE = (Path(__file__).parents[2] / "docs" / "growths.md").read_text()
# The command, the parameters and the layers.
LINES = re.findall(r"^hfgrow (.*?) --dry-run +# ([\d,]+) parameters, (\d+) layers$", PAGE, re.M)


def shape(model_type: str, hidden: int, ffn: int, layers: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "architectures": [f"{model_type.title()}ForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **more,
    }


def heads(query: int, key_value: int, width: int) -> dict[str, Any]:
    return {"num_attention_heads": query, "num_key_value_heads": key_value, "head_dim": width}


PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-4B-Base": shape(
        "qwen3",
        2560,
        9728,
        36,
        **heads(32, 8, 128),
        vocab_size=151936,
        tie_word_embeddings=True,
    ),
    "tiiuae/Falcon3-7B-Base": shape(
        "llama", 3072, 23040, 28, **heads(12, 4, 256), vocab_size=131072
    ),
    "mistralai/Mistral-Nemo-Base-2407": shape(
        "mistral", 5120, 14336, 40, **heads(32, 8, 128), vocab_size=131072
    ),
    "SmolLM2-1.7B": shape(
        "llama",
        2048,
        8192,
        24,
        **heads(32, 32, 64),
        vocab_size=49152,
        tie_word_embeddings=True,
    ),
    "mistralai/Mistral-7B-v0.1": shape(
        "mistral", 4096, 14336, 32, **heads(32, 8, 128), vocab_size=32000
    ),
    "meta-llama/Llama-3.1-8B": shape(
        "llama", 4096, 14336, 32, **heads(32, 8, 128), vocab_size=128256
    ),
}


@pytest.mark.parametrize(("typed", "parameters", "layers"), LINES, ids=[line[0] for line in LINES])
def test_a_released_growth_is_planned_as_the_page_says(
    tmp_path: Path, typed: str, parameters: str, layers: str
) -> None:
    operator, model, *words = shlex.split(typed)
    try:
        write_sparse(tmp_path, PUBLISHED[model], num_shards=4)
    except OSError:
        pytest.skip("the file system has no sparse files of that size")
    finished = call_hfgrow(operator, tmp_path, *words, "--dry-run", "--json", cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout
    found = json.loads(finished.stdout)
    assert f"{found['num_parameters']['grown']:,}" == parameters
    assert str(found["num_hidden_layers"]["grown"]) == layers


def test_every_growth_that_travels_with_hfgrow_stands_on_the_page() -> None:
    assert all(any(name in typed.split() for typed, _, _ in LINES) for name in GROWTHS)


@pytest.mark.parametrize("name", GROWTHS)
def test_a_growth_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    text = GROWTHS[name].read_text(encoding="utf-8")
    for word in ("Source:", "Base:", "Run:"):
        assert f"# {word}" in text
    assert f"{name} --dry-run" in text
    assert read_steps(GROWTHS[name]).steps
