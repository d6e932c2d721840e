"""Group C: lists and rules of config.json with an entry for each layer."""

import shutil
from pathlib import Path

import pytest

from tests.attacks.craft import check, edit_config
from tests.attacks.refusal import assert_refused
from tests.checkpoints import MakeCheckpoint


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
    assert_refused(folder, "config.json", key)


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
    assert_refused(folder, "config.json", key)


@pytest.mark.case("C15")
def test_an_unknown_list_with_an_entry_for_each_layer_is_refused(base: Path) -> None:
    edit_config(base, layer_scales=[1.0, 1.0, 1.0, 1.0])
    assert_refused(base, "layer_scales", "one entry for each layer")


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
    assert_refused(base, where, "one entry for each layer")


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
