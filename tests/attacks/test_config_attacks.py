"""Group C: a config.json that is none, and numbers in it that the tensors do not have.

Group C: lists and rules of config.json with an entry for each layer.

A config that transformers refuses is the base's fault, and is told as that, with the reason.
"""

import ast
import shutil
from pathlib import Path
from typing import Any

import pytest

import hfgrow
from hfgrow.errors import ModelError
from hfgrow.train.stage import load_model
from tests.attacks.craft import check, edit_config, read_raw, rename_tensors
from tests.attacks.refusal import check_refused, check_refused_in_little_memory
from tests.checkpoints import MakeCheckpoint, edit_json, load
from tests.program import call_hfgrow

EMBEDDINGS = "model.embed_tokens.weight"


@pytest.mark.case("C1")
@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param("", "not JSON", id="C1-empty"),
        pytest.param("model_type: llama", "not JSON", id="C1-yaml"),
        pytest.param("[]", "a JSON object, not a list", id="C1-list"),
        pytest.param("null", "a JSON object", id="C1-null"),
        pytest.param("{}", "model_type is missing", id="C1-nothing"),
        pytest.param("\ufeff{}", "not JSON", id="C1-bom"),
        pytest.param(b"\xff\xfe{\0}\0", "not UTF-8", id="C1-utf16"),
        pytest.param('{"model_type": "llama", "model_type": "llama"}', "twice", id="C1-twice"),
        pytest.param('{"a": 1e999}', "1e999", id="C1-infinity"),
        pytest.param('{"a": "\\ud800"}', "surrogate", id="C1-surrogate"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(
    base: Path, content: bytes | str, word: str
) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    (base / "config.json").write_bytes(raw)
    check_refused(base, "config.json", word)


@pytest.mark.case("C1")
def test_a_missing_config_is_refused(base: Path) -> None:
    (base / "config.json").unlink()
    check_refused(base, "no config.json")


@pytest.mark.case("C2", "C3")
@pytest.mark.parametrize(
    "value",
    [..., None, 3, 5, 0, -1, "4", 4.0, True, [4], 10**400],
    ids=lambda value: f"C3-{str(value)[:12]}",
)
def test_a_wrong_number_of_layers_is_refused(base: Path, value: object) -> None:
    """C2 and C3: transformers would fill the missing layers at random."""
    edit_config(base, num_hidden_layers=value)
    check_refused(base, "num_hidden_layers")


@pytest.mark.case("C3")
def test_the_refusal_says_both_depths(base: Path) -> None:
    edit_config(base, num_hidden_layers=5)
    check_refused(base, "config.json says num_hidden_layers 5", "the tensors show 4 layers")


@pytest.mark.case("C3")
@pytest.mark.parametrize("layers", [10**12, 2**31 - 1], ids="C3-{}".format)
def test_a_giant_number_of_layers_takes_no_memory(base: Path, layers: int) -> None:
    edit_config(base, num_hidden_layers=layers)
    assert "num_hidden_layers" in check_refused_in_little_memory(base).stderr


@pytest.mark.case("C4")
@pytest.mark.parametrize(
    ("key", "value", "tensor"),
    [
        ("hidden_size", 64, EMBEDDINGS),
        ("intermediate_size", 64, "mlp.gate_proj.weight"),
        ("vocab_size", 65, EMBEDDINGS),
        ("num_key_value_heads", 4, "self_attn.k_proj.weight"),
        ("head_dim", 16, "self_attn.q_proj.weight"),
    ],
    ids=lambda value: f"C4-{value}",
)
def test_a_size_that_the_tensors_do_not_have_is_refused(
    base: Path, key: str, value: int, tensor: str
) -> None:
    edit_config(base, **{key: value})
    check_refused(base, tensor, "has shape [", "config.json demands [")


@pytest.mark.case("C5")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"hidden_size": 34, "head_dim": ...}, ("34", "4"), id="C5-heads"),
        pytest.param({"num_key_value_heads": 3}, ("4", "3"), id="C5-kv"),
        pytest.param({"num_key_value_heads": 8}, ("4", "8"), id="C5-more-kv"),
        pytest.param({"head_dim": 7}, ("head_dim", "7", "odd"), id="C5-odd"),
        pytest.param({"hidden_size": 0}, ("hidden_size",), id="C5-zero"),
        pytest.param({"num_attention_heads": 10**30}, ("num_attention_heads",), id="C5-huge"),
        pytest.param({"num_attention_heads": "4"}, ("num_attention_heads",), id="C5-text"),
        pytest.param({"num_key_value_heads": 0}, ("num_key_value_heads",), id="C5-no-kv"),
        pytest.param({"head_dim": 8.0}, ("head_dim",), id="C5-float"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(
    base: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    edit_config(base, **changes)
    check_refused(base, "config.json", *words)


@pytest.mark.case("C5")
def test_an_explicit_head_dim_is_honoured(make_checkpoint: MakeCheckpoint) -> None:
    """C5: 4 heads of 16 on a hidden size of 32."""
    check(make_checkpoint(head_dim=16))


@pytest.mark.case("C6")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param("3", "7", ("0, 1, 2, 7", "gaps"), id="C6-gap"),
        pytest.param("0", "4", ("1, 2, 3, 4", "gaps"), id="C6-from-1"),
        pytest.param("3", "03", ("model.layers.3.", "missing"), id="C6-padded"),
        pytest.param("3", "-3", ("3 layers",), id="C6-negative"),
        pytest.param("3", "99999999999", ("3 layers",), id="C6-huge"),
        pytest.param("3", "\u0663", ("model.layers.3.", "missing"), id="C6-arabic"),
    ],
)
def test_layers_that_are_not_numbered_from_0_are_refused(
    base: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    weights = base / "model.safetensors"
    prefix = f"model.layers.{old}."
    names = {n: n.replace(prefix, f"model.layers.{new}.") for n in read_raw(weights)[0]}
    rename_tensors(weights, names)
    check_refused(base, *words)


@pytest.mark.case("C14")
@pytest.mark.parametrize(
    ("key", "value"),
    [("layer_types", ["full_attention"] * 3), ("layer_types", []), ("layer_types", "x")],
    ids=lambda value: f"C14-{value}",
)
def test_a_list_of_layers_of_another_length_is_refused(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, key: str, value: object
) -> None:
    folder = Path(shutil.copytree(make_checkpoint("qwen2"), tmp_path / "qwen2"))
    edit_config(folder, **{key: value})
    check_refused(folder, "config.json", key)


@pytest.mark.case("C14")
@pytest.mark.parametrize(
    ("model_type", "key", "value"),
    [
        ("smollm3", "no_rope_layer_interval", 0),
        ("smollm3", "no_rope_layer_interval", None),
        ("smollm3", "no_rope_layer_interval", "4"),
        ("qwen2", "max_window_layers", -1),
        ("qwen2", "max_window_layers", None),
        ("qwen3", "max_window_layers", 1.5),
        ("gemma3_text", "sliding_window_pattern", 0),
        ("gemma3_text", "sliding_window_pattern", None),
    ],
    ids=lambda value: f"C14-{value}",
)
def test_a_rule_for_layers_that_cannot_be_is_refused(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, model_type: str, key: str, value: object
) -> None:
    folder = Path(shutil.copytree(make_checkpoint(model_type), tmp_path / "copy"))
    edit_config(folder, layer_types=..., no_rope_layers=..., **{key: value})
    check_refused(folder, "config.json", key)


@pytest.mark.case("C15")
def test_an_unknown_list_with_an_entry_for_each_layer_is_refused(base: Path) -> None:
    edit_config(base, layer_scales=[1.0, 1.0, 1.0, 1.0])
    check_refused(base, "layer_scales", "one entry for each layer")


@pytest.mark.case("C15")
@pytest.mark.parametrize("value", [["a", "a", "b", "a"], ["a", "b", "c", "d"]], ids=str)
def test_a_list_of_names_of_layers_is_one_of_layers(base: Path, value: list[str]) -> None:
    edit_config(base, mlp_layer_types=value)
    check_refused(base, "mlp_layer_types", "one entry for each layer")


@pytest.mark.case("C15")
@pytest.mark.parametrize(
    "more",
    [
        {"languages": ["en", "de", "fr", "it"]},
        {"tags": ["a", "b", "c", "d"]},
        {"card": {"datasets": ["a/a", "b/b", "c/c", "d/d"]}},
        {"stop_token_ids": [1, 2, 3, 4]},
        {"eos_token_id": [1, 2, 3, 4]},
    ],
    ids=lambda value: f"C15-{next(iter(value))}",
)
def test_a_list_may_have_as_many_entries_as_layers_by_chance(
    base: Path, more: dict[str, object]
) -> None:
    edit_config(base, **more)
    check(base)


@pytest.mark.case("C15")
@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"scales": [1, 2, 3, 4]}, "extra.scales"),
        ({"a": {"b": [{"c": [0, 0, 0, 0]}]}}, "extra.a.b.0.c"),
        ({"0": {}, "1": {}, "2": {}, "3": {}}, "extra"),
        ({"layers": {"0": 1, "1": 1, "2": 1, "3": 1}}, "extra.layers"),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], "extra."),
    ],
    ids=["C15-in-a-key", "C15-deep", "C15-numbers", "C15-numbers-in-a-key", "C15-list-of-lists"],
)
def test_an_entry_for_each_layer_is_found_inside_other_keys(
    base: Path, value: object, where: str
) -> None:
    edit_config(base, extra=value)
    check_refused(base, where, "one entry for each layer")


@pytest.mark.case("C15")
def test_tables_that_only_happen_to_have_that_length_are_kept(base: Path) -> None:
    labels = {str(i): f"LABEL_{i}" for i in range(4)}
    edit_config(
        base, id2label=labels, label2id=labels, extra={"a": [1, 2, 3], "b": {"0": 1, "1": 2}}
    )
    check(base)


@pytest.mark.case("C15")
def test_a_config_nested_as_deep_as_json_allows_is_no_crash(base: Path) -> None:
    text = (base / "config.json").read_text().rstrip().removesuffix("}")
    (base / "config.json").write_text(f'{text}, "deep": {"[" * 900}{"]" * 900}}}')
    check(base)


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


@pytest.mark.case("C9")
def test_whatever_transformers_opens_it_opens_without_code_of_the_model() -> None:
    """Settings of generation are data alone, and a class that is at hand runs nothing else."""
    opened = []
    for file in Path(hfgrow.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if ".from_pretrained(" not in text and ".from_config(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in ("from_pretrained", "from_config"):
                continue
            if "generation" in ast.unparse(node.func.value).lower():
                continue
            if node.args and ast.unparse(node.args[0]) == "None":
                continue
            trusted = [
                ast.unparse(each.value) for each in node.keywords if each.arg == "trust_remote_code"
            ]
            opened.append((file.name, node.lineno, trusted))
    assert len(opened) >= 5
    assert [place for place in opened if place[2] != ["False"]] == []
