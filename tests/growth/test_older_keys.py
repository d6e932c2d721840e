"""config.json says its rotary settings in the words of transformers 5 and in older ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.derived.proven import proven
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.plan.elsewhere import OLDER_KEYS, with_older_keys, with_older_rotary
from hfgrow.plan.families import FAMILIES
from hfgrow.train.initial_weights import write_fresh
from hfgrow.train.recipe.parts import FreshModel
from tests.checkpoints import SIZES, TRAITS, MakeCheckpoint, edit_json
from tests.program import call_hfgrow

DEMO = Path(__file__).parents[2] / "hfgrow" / "demo"
FULL, SLIDING = "full_attention", "sliding_attention"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 2, "long_factor": [2.0] * 2}
THETA = {"rope_theta": 500000.0, "rope_type": "default"}
SHARE = {**THETA, "partial_rotary_factor": 0.5}


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def gemma3(*layer_types: str, **more: Any) -> dict[str, Any]:
    return {"model_type": "gemma3_text", "layer_types": list(layer_types), **more}


@pytest.fixture
def grown(tmp_path: Path, make_checkpoint: MakeCheckpoint) -> Path:
    """A stacked Llama whose base says its theta in the words of transformers 5."""
    shutil.copytree(make_checkpoint(rope_parameters=THETA), tmp_path / "base")
    done = call_hfgrow("stack", "base", "--g", "2", "--out", "grown", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "grown"


def test_a_grown_model_says_its_theta_both_ways(grown: Path) -> None:
    config = config_of(grown)
    assert (config["rope_theta"], config["rope_parameters"]) == (500000.0, THETA)
    assert "rope_scaling" not in config


def test_a_model_grown_before_older_keys_were_written_is_verified(grown: Path) -> None:
    edit_json(grown / "config.json", rope_theta=...)
    done = call_hfgrow("verify", grown)
    assert done.returncode == 0, done.stderr


def test_an_older_key_that_says_something_else_fails_the_verification(grown: Path) -> None:
    edit_json(grown / "config.json", rope_theta=10000.0)
    done = call_hfgrow("verify", grown)
    assert done.returncode == 9
    assert "config.json: rope_theta is 10000.0, planned was 500000.0" in done.stderr
    how = f"hfgrow lineage {grown} says how to grow it anew"
    assert f"Hint: changed after it was grown? {how}\n" in done.stderr


def test_a_fresh_model_says_its_theta_both_ways(tmp_path: Path) -> None:
    config = {"model_type": "llama", **SIZES, "vocab_size": 2048, "rope_parameters": THETA}
    write_fresh(FreshModel(config=config), DEMO, 0, tmp_path / "fresh")
    assert config_of(tmp_path / "fresh")["rope_theta"] == 500000.0


@pytest.mark.parametrize(
    "rope", [THETA, SHARE, {**YARN, **SHARE, "rope_type": "yarn"}], ids=["plain", "share", "yarn"]
)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_transformers_reads_the_same_from_both_ways(model_type: str, rope: dict[str, Any]) -> None:
    if model_type == "phi3" and "factor" in rope:
        rope = LONGROPE
    if model_type in ("gemma3_text", "olmo3"):
        rope = {FULL: rope, SLIDING: THETA}
    config = {"model_type": model_type, **SIZES, **TRAITS[model_type], "rope_parameters": rope}
    read: Any = AutoConfig.for_model
    one, two = (read(**json.loads(json.dumps(c))) for c in (config, with_older_keys(config)))
    assert one.rope_parameters == two.rope_parameters


@pytest.mark.parametrize(
    ("model_type", "older"),
    [
        ("phi3", {"rope_theta": 500000.0, "partial_rotary_factor": 0.5}),
        ("olmoe", {"rope_theta": 500000.0, "partial_rotary_factor": 0.5}),
        ("gpt_neox", {"rotary_emb_base": 500000.0, "rotary_pct": 0.5}),
    ],
)
def test_the_share_that_is_rotated_is_said_too_as_the_class_called_it(
    model_type: str, older: dict[str, Any], tmp_path: Path
) -> None:
    config = {"model_type": model_type, **SIZES, "rope_parameters": SHARE}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_config(LocalFolder(tmp_path))[0]
    assert {key: found[key] for key in found.keys() & OLDER_KEYS} == older


def test_the_text_part_of_a_model_that_sees_says_its_theta_both_ways(tmp_path: Path) -> None:
    config = {"model_type": "mistral3", "text_config": {**SIZES, "rope_parameters": THETA}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(LocalFolder(tmp_path))[0]["text_config"]["rope_theta"] == 500000.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("scaled", [{}, {"rope_type": "linear", "factor": 2.0}], ids=["", "scaled"])
def test_transformers_reads_the_same_of_every_type_without_a_table(scaled: dict[str, Any]) -> None:
    read: Any = AutoConfig.for_model
    num_read = 0
    for model_type in proven()[transformers.__version__]:
        try:
            filled = json.loads(read(model_type).to_json_string(use_diff=False))
            rope = filled["rope_parameters"]
            rope |= {"rope_theta": 7 * rope["rope_theta"], **scaled}
            config = {k: v for k, v in filled.items() if k not in OLDER_KEYS}
            config["rope_parameters"] = rope
            if "partial_rotary_factor" in rope:
                rope["partial_rotary_factor"] = 0.75
            one = read(**json.loads(json.dumps(config)))
        except (AttributeError, KeyError, TypeError, ValueError, StrictDataclassError):
            # It has no such settings, or not these.
            continue
        two = read(**json.loads(json.dumps(with_older_rotary(config))))
        assert one.rope_parameters == two.rope_parameters, model_type
        num_read += 1
    assert num_read > 50


def test_scaled_positions_are_said_without_theta() -> None:
    said = with_older_keys({"model_type": "llama", "rope_parameters": {**YARN, "rope_theta": 7.0}})
    assert (said["rope_theta"], said["rope_scaling"]) == (7.0, YARN)


def test_what_is_said_in_older_words_stays() -> None:
    config = {"model_type": "llama", "rope_parameters": THETA, "rope_theta": 1.0}
    assert with_older_keys(config) == config


def test_gemma_3_says_the_theta_of_both_kinds_of_layers() -> None:
    rope = {FULL: {**YARN, "rope_theta": 7.0}, SLIDING: {**THETA, "rope_theta": 3.0}}
    said = with_older_keys(gemma3(SLIDING, FULL, rope_parameters=rope))
    assert (said["rope_theta"], said["rope_local_base_freq"]) == (7.0, 3.0)
    assert said["rope_scaling"] == YARN


@pytest.mark.parametrize(
    ("layer_types", "said", "expected"),
    [
        (([SLIDING] * 5 + [FULL]) * 2, None, 6),
        ([SLIDING] * 4, None, 6),
        ([SLIDING, SLIDING, FULL] * 2, 3, 3),
        ([SLIDING, SLIDING, FULL] * 2, None, 3),
        ([SLIDING, SLIDING, FULL, SLIDING] * 2, 3, None),
        ([SLIDING, SLIDING, FULL] * 2, "3", 3),
    ],
)
def test_gemma_3_says_a_pattern_where_its_layers_have_one(
    layer_types: list[str], said: object, expected: int | None
) -> None:
    config = gemma3(*layer_types, **({} if said is None else {"sliding_window_pattern": said}))
    assert with_older_keys(config).get("sliding_window_pattern") == expected


@pytest.mark.parametrize("rope", [None, [], "x", {"rope_theta": "x"}, {FULL: 3}], ids=str)
def test_rotary_settings_that_are_none_are_left_as_they_are(
    rope: object, tmp_path: Path, make_checkpoint: MakeCheckpoint
) -> None:
    config = config_of(make_checkpoint("gemma3_text")) | {"rope_parameters": rope}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(LocalFolder(tmp_path))[0]["rope_parameters"] == rope
