"""Group C: kinds of models that are not grown, and what their classes cannot have."""

import shutil
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.errors import ModelError
from hfgrow.plan.families import FAMILIES
from tests.attacks.craft import add_tensor, edit_config
from tests.attacks.refusal import assert_refused
from tests.checkpoints import MakeCheckpoint


@pytest.mark.case("C7")
@pytest.mark.parametrize(
    "model_type",
    ["gpt5", "Llama", "Mixtral", "../llama", "", 5, ["llama"], ["mixtral"], None],
    ids=lambda value: f"C7-{value}",
)
def test_an_unknown_architecture_is_refused_with_the_known_ones(
    base: Path, model_type: object
) -> None:
    edit_config(base, model_type=model_type)
    assert_refused(base, "model_type", ", ".join(sorted(FAMILIES)))


@pytest.mark.case("C7")
@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("mixtral", "mixture of experts"),
        ("qwen3_moe", "mixture of experts"),
        ("granitemoe", "mixture of experts"),
        ("gpt_oss", "sinks"),
        ("deepseek_v3", "latent attention"),
        ("gemma3", "images"),
        ("gpt2", "LayerNorm"),
        ("mamba", "state-space"),
        ("t5", "causal"),
    ],
    ids="C7-{}".format,
)
def test_a_well_known_architecture_is_refused_with_its_reason(
    base: Path, model_type: str, reason: str
) -> None:
    edit_config(base, model_type=model_type)
    assert_refused(base, f"model_type {model_type} cannot be grown", reason)


@pytest.mark.case("C7")
def test_a_gemma_that_sees_is_told_of_the_one_that_does_not(base: Path) -> None:
    edit_config(base, model_type="gemma3")
    with pytest.raises(ModelError) as caught:
        read(LocalFolder(base))
    assert "gemma3_text" in caught.value.hint


@pytest.mark.case("C6")
@pytest.mark.parametrize(
    ("model_type", "changes", "words"),
    [
        ("llama", {"num_attention_heads": 6, "head_dim": 8}, "hidden_size 32 is no multiple"),
        ("gemma2", {"num_attention_heads": 6}, "hidden_size 32 is no multiple"),
        ("minicpm3", {"q_lora_rank": None}, "q_lora_rank null"),
        ("minicpm3", {"kv_lora_rank": "16"}, "kv_lora_rank must be"),
        ("minicpm3", {"v_head_dim": 0}, "v_head_dim must be"),
        ("minicpm3", {"dim_model_base": 1.5}, "dim_model_base must be"),
        ("minicpm3", {"scale_depth": "1"}, "scale_depth must be"),
        ("minicpm3", {"scale_depth": True}, "scale_depth must be"),
        ("minicpm3", {"qk_rope_head_dim": 5}, "qk_rope_head_dim 5 is odd"),
        ("minicpm3", {"num_key_value_heads": 2}, "num_key_value_heads 2 differs"),
        ("minicpm3", {"num_key_value_heads": ...}, "num_key_value_heads 40 differs"),
        ("phi3", {"rope_parameters": ["longrope"]}, "rope_parameters must be an object"),
        ("phi3", {"rope_parameters": {"partial_rotary_factor": "x"}}, "partial_rotary_factor"),
        ("phi3", {"rope_parameters": {"long_factor": [1.0] * 3}}, "has 3 factors"),
        (
            "phi3",
            {"rope_parameters": {"short_factor": 4}},
            "short_factor of longrope must be a list",
        ),
    ],
    ids=lambda value: f"C6-{value}",
)
def test_what_the_classes_of_a_family_cannot_have_is_refused(
    make_checkpoint: MakeCheckpoint,
    tmp_path: Path,
    model_type: str,
    changes: dict[str, object],
    words: str,
) -> None:
    folder = Path(shutil.copytree(make_checkpoint(model_type), tmp_path / "copy"))
    edit_config(folder, **changes)
    assert_refused(folder, "config.json", words)


@pytest.mark.case("C8")
@pytest.mark.parametrize(
    "key", ["num_local_experts", "num_experts", "n_routed_experts"], ids="C8-{}".format
)
def test_a_mixture_of_experts_is_refused(base: Path, key: str) -> None:
    edit_config(base, **{key: 8})
    assert_refused(base, key, "mixture of experts")


@pytest.mark.case("C8")
def test_expert_tensors_are_refused(base: Path) -> None:
    name = "model.layers.0.mlp.experts.0.up_proj.weight"
    add_tensor(base / "model.safetensors", name, [4], bytes(16))
    assert_refused(base, name, "mixture of experts")
