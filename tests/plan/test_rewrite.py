"""The settings of a deeper model of a derived family, key by key."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.errors import ModelError, UsageError
from hfgrow.plan.families.derived import DerivedFamily, rhythm
from hfgrow.plan.families.rewrite import rewritten

STACK, INTERPOLATE = (0, 1, 2, 3, 0, 1, 2, 3), (0, 0, 1, 1, 2, 2, 3, 3)


def grown(settings: dict[str, Any], layer_map: tuple[int, ...] = STACK, **filled: Any) -> Any:
    return rewritten({"num_hidden_layers": 4, **settings}, filled, layer_map, 4)


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_layers", "decoder_layers"])
def test_the_number_of_layers_follows_whatever_its_key(key: str) -> None:
    assert rewritten({key: 4}, {}, STACK, 4) == {key: 8}


def test_a_class_that_counts_sublayers_keeps_its_multiple() -> None:
    config = {"num_layers": 4, "num_hidden_layers": 8}
    assert rewritten(config, {}, STACK, 4) == {"num_layers": 8, "num_hidden_layers": 16}


def test_a_depth_that_only_the_class_knows_is_written_out() -> None:
    assert rewritten({}, {"n_layers": 4}, STACK, 4) == {"n_layers": 8}


def test_lists_that_the_class_derives_are_written_out() -> None:
    found = grown({}, INTERPOLATE, layer_types=["a", "b", "a", "c"])
    assert found["layer_types"] == ["a", "a", "b", "b", "a", "a", "c", "c"]


def test_lists_of_layers_are_counted_anew() -> None:
    assert grown({"moe_layers": [1, 3]})["moe_layers"] == [1, 3, 5, 7]
    assert grown({"ple_layer_ids": [1]}, INTERPOLATE)["ple_layer_ids"] == [1, 2]


def test_settings_of_single_layers_move_with_them() -> None:
    found = grown({"per_layer_config": {"03": {"head_dim": 16}}}, INTERPOLATE)
    assert found["per_layer_config"] == {"6": {"head_dim": 16}, "7": {"head_dim": 16}}


def test_a_cycle_of_kinds_becomes_the_kinds_of_all_layers() -> None:
    found = grown({"block_types": ["r", "r", "a"]})
    assert found["block_types"] == ["r", "r", "a", "r", "r", "r", "a", "r"]


def test_a_count_of_first_layers_counts_the_copies() -> None:
    assert grown({"first_k_dense_replace": 1}, INTERPOLATE)["first_k_dense_replace"] == 2
    assert grown({"num_kv_shared_layers": 2}, INTERPOLATE)["num_kv_shared_layers"] == 4


def test_a_count_that_cannot_say_what_the_map_asks_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"first layers .*first_k_dense_replace 1"):
        grown({"first_k_dense_replace": 1})
    with pytest.raises(UsageError, match=r"last layers .*num_kv_shared_layers 2"):
        grown({"num_kv_shared_layers": 2})


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(ModelError, match="layer_types has 3 entries for 4 layers"):
        grown({"layer_types": ["a", "b", "a"]})


def test_kinds_that_are_said_with_a_count_are_said_one_by_one() -> None:
    kinds = ["global", "local"]
    found = grown({"attention_layers": kinds * 2, "attention_types": [[kinds, 2]]})
    assert found["attention_types"] == [[kinds * 4, 1]]


def test_lists_of_layers_counted_from_one_inside_a_part_follow() -> None:
    lists = {"full_attn_layers": [4], "kda_layers": [1, 2, 3], "num_heads": 2}
    found = grown({"linear_attn_config": lists})["linear_attn_config"]
    assert found == {
        "full_attn_layers": [4, 8],
        "kda_layers": [1, 2, 3, 5, 6, 7],
        "num_heads": 2,
    }


@pytest.mark.parametrize(("last", "after"), [(2, (2, 5)), (-1, (2, 7))])
def test_a_range_of_layers_with_experts_follows(last: int, after: tuple[int, int]) -> None:
    found = grown({"moe_layer_start_index": 1, "moe_layer_end_index": last}, INTERPOLATE)
    assert (found["moe_layer_start_index"], found["moe_layer_end_index"]) == after


def test_blocks_that_predict_further_tokens_are_counted_as_none() -> None:
    assert grown({"num_nextn_predict_layers": 1})["num_nextn_predict_layers"] == 0


@pytest.mark.parametrize("value", [[1, 2, 3, 4], {"0": 1, "1": 1, "2": 1, "3": 1}])
def test_what_has_an_entry_for_each_layer_and_is_not_known_is_refused(value: Any) -> None:
    with pytest.raises(ModelError, match="odd_layers has one entry for each layer"):
        grown({"odd_layers": value})


def test_settings_that_transformers_ignores_are_refused() -> None:
    with pytest.raises(UsageError, match="skips parts of layer 1"):
        grown({"per_layer_config": {"1": {"skip": ["mlp"]}}})


def test_settings_inside_config_json_are_changed_there() -> None:
    family = DerivedFamily("m", "M", "5", "layers.", ("text_config",), {}, (), frozenset())
    config = {"a": 1, "text_config": {"b": 2}}
    assert family.with_settings(config, {"b": 3}) == {"a": 1, "text_config": {"b": 3}}


@given(st.integers(0, 4), st.lists(st.sampled_from("ABC"), min_size=1, max_size=4))
def test_the_rhythm_of_kinds_is_found(first: int, period: list[str]) -> None:
    kinds = ["X"] * first + period * 3
    found = rhythm(kinds)
    assert found is not None
    prefix, length = found
    assert (prefix, length) <= (first, len(period))
    assert all(kinds[i] == kinds[i + length] for i in range(prefix, len(kinds) - length))
