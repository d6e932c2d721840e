"""Group C, second half: kinds of models that must be refused, settings that must be kept.

Group C: kinds of models that are not grown, and what their classes cannot have.

Group C, code in a model folder: never run, never copied.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hfgrow.checkpoint.config import read_config
from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.plan.families import FAMILIES
from tests.attacks.craft import add_tensor, check, edit_config
from tests.attacks.refusal import check_refused
from tests.checkpoints import MakeCheckpoint, edit_json, load, logits, naive_twin
from tests.program import call_hfgrow, run_hfgrow


@pytest.mark.case("C16")
@pytest.mark.parametrize(
    "method",
    ["gptq", "awq", "bitsandbytes", "fp8", "mxfp4", "\x1b[31m", None, ["gptq"]],
    ids=lambda value: f"C16-{value!r}",
)
def test_a_quantised_model_is_refused(base: Path, method: object) -> None:
    edit_config(base, quantization_config={"quant_method": method})
    check_refused(base, "config.json", "quantised")


@pytest.mark.case("C16")
@pytest.mark.parametrize("value", [True, [], "gptq", {}], ids=lambda value: f"C16-{value!r}")
def test_any_quantization_config_is_refused(base: Path, value: object) -> None:
    edit_config(base, quantization_config=value)
    check_refused(base, "quantised")


@pytest.mark.case("C16")
def test_a_quantised_part_is_refused_with_its_place(base: Path) -> None:
    edit_config(base, text_config={"quantization_config": {"quant_method": "fp8"}})
    check_refused(base, "config.json: text_config.quantization_config: the model is quantised")


@pytest.mark.case("C16")
@pytest.mark.parametrize("name", ["qweight", "weight_scale", "weight.absmax"], ids="C16-{}".format)
def test_tensors_of_a_quantiser_are_refused(base: Path, name: str) -> None:
    full = f"model.layers.0.self_attn.q_proj.{name}"
    add_tensor(base / "model.safetensors", full, [4], bytes(16))
    check_refused(base, full, "quantised")


@pytest.mark.case("B15")
@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.q_proj.lora_A.weight", "base_model.model.model.norm.weight"],
    ids="B15-{}".format,
)
def test_tensors_of_an_adapter_are_refused(base: Path, name: str) -> None:
    add_tensor(base / "model.safetensors", name, [4], bytes(16))
    check_refused(base, name, "LoRA adapter")


@pytest.mark.case("C17")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, id="theta"),
        pytest.param(
            {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
            id="linear",
        ),
        pytest.param(
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 1e4,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8,
                }
            },
            id="llama3",
        ),
        pytest.param({"attention_bias": False, "mlp_bias": True}, id="mlp_bias"),
        pytest.param({"attention_bias": True, "mlp_bias": False}, id="attention_bias"),
        pytest.param({"rms_norm_eps": 1e-2, "hidden_act": "gelu"}, id="eps"),
    ],
)
def test_settings_that_shape_the_function_are_kept(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, settings: dict[str, Any]
) -> None:
    base = make_checkpoint(**settings)
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    before, after = (json.loads((f / "config.json").read_text()) for f in (base, tmp_path / "out"))
    assert {key: after[key] for key in settings} == {key: before[key] for key in settings}
    twin = naive_twin(load(base)[0], [0, 1, 2, 3, 0, 1, 2, 3])
    assert torch.equal(logits(load(tmp_path / "out")[0]), logits(twin))


@pytest.mark.case("C17")
def test_old_rope_keys_are_kept(base: Path, tmp_path: Path) -> None:
    """C17: what transformers 4 wrote."""
    old = {"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    edit_config(base, rope_parameters=..., **old)
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: after.get(key) for key in old} == old
    assert "rope_parameters" not in after


@pytest.mark.case("C18")
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"], ids="C18-{}".format)
@pytest.mark.parametrize(
    "value", ["junk", "torch.int8", "fp8", 16, ["float32"], {"a": 1}, True], ids=str
)
def test_a_junk_dtype_is_refused(base: Path, key: str, value: object) -> None:
    edit_config(base, **{key: value})
    check_refused(base, "config.json", key)


@pytest.mark.case("C18")
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"], ids="C18-{}".format)
@pytest.mark.parametrize(
    ("word", "name"),
    [("torch.bfloat16", "bfloat16"), ("half", "float16"), ("torch.float", "float32")],
)
def test_a_dtype_as_trainers_spell_it_is_written_as_config_json_does(
    base: Path, key: str, word: str, name: str
) -> None:
    edit_config(base, dtype=..., torch_dtype=...)
    edit_config(base, **{key: word})
    plan = read(LocalFolder(base))
    assert plan.config[key] == name
    assert any(word in note for note in plan.notes)


@pytest.mark.case("C18")
@pytest.mark.parametrize("value", ["auto", "torch.auto"])
def test_an_automatic_dtype_is_that_of_the_tensors(base: Path, value: str) -> None:
    edit_config(base, dtype=..., torch_dtype=value)
    plan = read(LocalFolder(base))
    assert "torch_dtype" not in plan.config
    assert {tensor.dtype for tensor in plan.tensors.values()} == {"F32"}


@pytest.mark.case("C18")
def test_the_dtypes_of_the_parts_of_a_model_that_sees_are_read_alike(tmp_path: Path) -> None:
    parts = {"text_config": {"torch_dtype": "torch.bfloat16"}, "vision_config": {"dtype": "auto"}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistral3", **parts}))
    config, _, notes = read_config(LocalFolder(tmp_path))
    assert config["text_config"] == {"torch_dtype": "bfloat16"}
    assert config["vision_config"] == {}
    assert "text_config.torch_dtype torch.bfloat16 is written as bfloat16" in notes


@pytest.mark.case("C18")
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"], ids="C18-{}".format)
def test_both_spellings_of_the_dtype_are_read(base: Path, key: str) -> None:
    edit_config(base, dtype=..., torch_dtype=...)
    edit_config(base, **{key: "float32"})
    check(base)


@pytest.mark.case("C19")
@pytest.mark.parametrize("value", [1, 2, None], ids=lambda value: f"C19-{value!r}")
def test_pretraining_tp_is_kept_and_noted(base: Path, value: object) -> None:
    """The weights are stored whole whatever it says, and SmolLM3 is published with 2."""
    edit_config(base, pretraining_tp=value)
    plan = read(LocalFolder(base))
    assert plan.config["pretraining_tp"] == value
    assert any("pretraining_tp" in note for note in plan.notes) == (value == 2)


@pytest.mark.case("C19")
@pytest.mark.parametrize(
    "value",
    [["LlamaForSequenceClassification"], ["LlamaForCausalLM", "LlamaForTokenClassification"], [5]],
    ids=lambda value: f"C19-{value}",
)
def test_a_class_for_another_task_is_refused(base: Path, value: object) -> None:
    edit_config(base, architectures=value)
    check_refused(base, "architectures", "LlamaForCausalLM")


@pytest.mark.case("C19")
@pytest.mark.parametrize(
    "value",
    [
        ["FSDPLlamaForCausalLM"],
        ["LLaMAForCausalLM"],
        ["LlamaForCausalLM", "LlamaForCausalLM"],
        ["PeftModelForCausalLM"],
        ["LlamaModel"],
        ["MistralForCausalLM"],
        "LlamaForCausalLM",
    ],
    ids=lambda value: f"C19-{value}",
)
def test_model_type_decides_which_class_a_model_has(base: Path, value: object) -> None:
    edit_config(base, architectures=value)
    plan = read(LocalFolder(base))
    assert plan.config["architectures"] == ["LlamaForCausalLM"]
    assert any("model_type decides" in note for note in plan.notes)


@pytest.mark.case("C19")
@pytest.mark.parametrize("value", [..., None, []], ids=["C19-absent", "C19-null", "C19-empty"])
def test_a_config_without_architectures_is_read(base: Path, value: object) -> None:
    edit_config(base, architectures=value)
    check(base)


@pytest.mark.case("C19")
@pytest.mark.parametrize(
    "key", ["tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window"]
)
@pytest.mark.parametrize("value", ["false", "no", 2, [], {}], ids=str)
def test_a_switch_that_is_no_switch_is_refused(base: Path, key: str, value: object) -> None:
    """C19: transformers takes the text "false" for true, or refuses it after the growth."""
    edit_config(base, **{key: value})
    check_refused(base, "config.json", key)


@pytest.mark.case("C21")
def test_tokenizer_code_and_pickles_are_not_copied(base: Path, tmp_path: Path) -> None:
    (base / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["e.E", null]}}')
    for name in ("e.py", "tokenizer.pkl", "LICENSE.py", "LICENSE.pkl", "vocab.bin"):
        (base / name).write_text("raise SystemExit('evil')")
    (base / "LICENSE").write_text("MIT")
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"LICENSE", "tokenizer_config.json"} <= written
    assert not [name for name in written if name.endswith((".py", ".pkl", ".bin"))]


@pytest.mark.case("B3", "C21")
def test_a_side_file_may_not_be_a_link_out_of_the_folder(base: Path, tmp_path: Path) -> None:
    """C21 and B3: the content of a link would be copied, and later pushed."""
    (tmp_path / "id_rsa").write_text("PRIVATE KEY")
    (base / "tokenizer.json").symlink_to(tmp_path / "id_rsa")
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 3
    assert "tokenizer.json" in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "id_rsa"]


@pytest.mark.parametrize("target", ["nowhere", "tokenizer.json"])
def test_a_side_file_that_links_to_nothing_is_named(
    base: Path, tmp_path: Path, target: str
) -> None:
    (base / "tokenizer.json").symlink_to(target)
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 3
    assert "tokenizer.json is no file that can be read" in finished.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.case("C21")
def test_a_folder_of_licences_does_not_stop_a_growth(base: Path, tmp_path: Path) -> None:
    (base / "LICENSES").mkdir()
    (base / "LICENSES" / "MIT.txt").write_text("MIT")
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert not (tmp_path / "out" / "LICENSES").exists()


@pytest.mark.case("C22")
def test_generation_settings_travel_with_the_model(base: Path, tmp_path: Path) -> None:
    text = '{"do_sample": true, "temperature": 0.6, "eos_token_id": [1, 2]}'
    (base / "generation_config.json").write_text(text)
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "generation_config.json").read_text() == text
    assert load(tmp_path / "out")[0].generation_config.temperature == 0.6


@pytest.mark.case("C22")
@pytest.mark.parametrize(
    ("text", "only_transformers_knows"),
    [
        ("[]", False),
        ("{", False),
        ('{"max_new_tokens": 1, "max_new_tokens": 2}', False),
        ('{"max_new_tokens": "many"}', True),
        ('{"compile_config": 5}', True),
    ],
    ids="C22-{}".format,
)
def test_generation_settings_that_would_stop_the_model_are_left_out(
    base: Path, tmp_path: Path, text: str, only_transformers_knows: bool
) -> None:
    (base / "generation_config.json").write_text(text)
    words: list[str | Path] = ["stack", base, "--g", "2", "--out", tmp_path / "out"]
    words += ["--verify"] * only_transformers_knows
    finished = call_hfgrow(*words)
    assert finished.returncode == 0, finished.stderr
    assert "generation_config.json of the base was left out" in finished.stderr
    assert not (tmp_path / "out" / "generation_config.json").exists()
    load(tmp_path / "out")


@pytest.mark.case("C20")
def test_a_missing_and_an_oversized_tokenizer_are_told(
    make_checkpoint: MakeCheckpoint, base: Path, tmp_path: Path
) -> None:
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "one")
    assert "the base has no tokenizer" in finished.stderr
    small = make_checkpoint(vocab_size=40, tokenizer=True)
    finished = call_hfgrow("stack", small, "--g", "2", "--verify", "--out", tmp_path / "two")
    assert finished.returncode == 0, finished.stderr
    assert "the tokenizer has 56 tokens, the model 40" in finished.stderr


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
    check_refused(base, "model_type", ", ".join(sorted(FAMILIES)))


@pytest.mark.case("C7")
@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("kimi_k2", "not in transformers"),
        ("qwen2_vl", "images"),
        ("t5", "causal"),
    ],
    ids="C7-{}".format,
)
def test_a_well_known_architecture_is_refused_with_its_reason(
    base: Path, model_type: str, reason: str
) -> None:
    edit_config(base, model_type=model_type)
    check_refused(base, f"model_type {model_type} cannot be grown", reason)


@pytest.mark.case("C7")
@pytest.mark.parametrize("model_type", ["gemma3", "gpt2", "mamba", "olmoe"], ids="C7-{}".format)
def test_a_model_type_that_is_not_that_of_the_class_is_refused(base: Path, model_type: str) -> None:
    edit_config(base, model_type=model_type)
    check_refused(base, "architectures is ['LlamaForCausalLM']", f"model_type {model_type} is a")


@pytest.mark.case("C7")
@pytest.mark.parametrize("model_type", ["gpt2", "mamba", "olmoe"], ids="C7-{}".format)
def test_a_model_type_that_is_not_that_of_the_tensors_is_refused(
    base: Path, model_type: str
) -> None:
    edit_config(base, model_type=model_type, architectures=...)
    check_refused(base, "is missing")


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
    check_refused(folder, "config.json", words)


@pytest.mark.case("C8")
@pytest.mark.parametrize(
    "key", ["num_local_experts", "num_experts", "n_routed_experts"], ids="C8-{}".format
)
def test_a_mixture_of_experts_is_refused(base: Path, key: str) -> None:
    edit_config(base, **{key: 8})
    check_refused(base, key, "mixture of experts")


@pytest.mark.case("C8")
def test_expert_tensors_are_refused(base: Path) -> None:
    name = "model.layers.0.mlp.experts.0.up_proj.weight"
    add_tensor(base / "model.safetensors", name, [4], bytes(16))
    check_refused(base, name, "mixture of experts")


GHOST = '"""Run by whoever trusts it."""\nfrom pathlib import Path\nPath({!r}).touch()\n'


def with_code(base: Path, marker: Path, **changes: Any) -> None:
    """Add code to a checkpoint that leaves a mark where it runs."""
    for name in ("configuration_evil.py", "modeling_evil.py", "tokenization_evil.py"):
        (base / name).write_text(GHOST.format(str(marker)))
    auto_map = {
        "AutoConfig": "configuration_evil.Config",
        "AutoModelForCausalLM": "modeling_evil.Model",
    }
    edit_json(base / "config.json", auto_map=auto_map, **changes)


@pytest.mark.case("C9")
def test_code_of_a_known_type_is_neither_run_nor_kept(base: Path, tmp_path: Path) -> None:
    with_code(base, tmp_path / "ran")
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 0
    assert "auto_map was dropped" in finished.stderr
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert not list((tmp_path / "out").glob("*.py"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.case("C9")
def test_code_that_a_part_of_the_config_names_is_not_kept(base: Path) -> None:
    edit_config(base, text_config={"auto_map": {"AutoConfig": "a.B"}, "inner": {"auto_map": "a.B"}})
    plan = read(LocalFolder(base))
    assert plan.config["text_config"] == {"inner": {}}
    assert any(note.startswith("text_config.inner.auto_map was dropped") for note in plan.notes)


@pytest.mark.case("C10")
def test_code_of_an_unknown_type_is_refused_without_a_question(base: Path, tmp_path: Path) -> None:
    with_code(base, tmp_path / "ran", model_type="evil")
    finished = run_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out", timeout=10)
    assert finished.returncode == 3
    assert "'evil' is unknown" in finished.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
