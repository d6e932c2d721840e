"""Recipes of mergekit: what of them is a growth, what they say besides, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import UsageError
from hfgrow.growth.steps import (
    planned,
    read_steps,
)
from hfgrow.plan.plan import LayerSource
from tests.growth.test_steps import written
from tests.layer_plans import plan_of
from tests.program import call_hfgrow

SLICES = """
slices:
- sources: [{model: org/base, layer_range: [0, 4]}]
- sources: [{model: org/base, layer_range: [2, 6]}]
merge_method: passthrough
dtype: bfloat16
"""


def test_slices_of_mergekit_are_the_partial_stack_that_they_are(tmp_path: Path) -> None:
    (tmp_path / "mk.yaml").write_text(SLICES)
    assert read_steps(tmp_path / "mk.yaml").steps == [("partial", {"pattern": "[1:4]-[3:6]"})]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("passthrough", "slerp", "merge_method slerp"),
        ("[2, 6]", "[6, 2]", "slice 2 is not one source"),
        ("[2, 6]", "[2.0, 6]", "slice 2 is not one source"),
        ("layer_range: [2, 6]", "layer_range: [2, 6], parameters: {scale: 0}", "has parameters"),
        ("org/base, layer_range: [2", "org/other, layer_range: [2", "layers of 2 models"),
        ("slices:", "slices: 3\nrest:", "have slices 3; expected a list of them"),
        ("slices:", "slices: {a: 1}\nrest:", "have slices {'a': 1}; expected a list of them"),
        ("slices:", "slices: []\nrest:", r"have slices \[\]; expected a list of them"),
        ("[2, 6]", "[2, 900000000000]", "the target has 900000000002 layers, more than"),
        ("dtype: bfloat16", "dtype: fp8", "have dtype fp8"),
        ("dtype: bfloat16", "dtype: [bfloat16]", r"have dtype \['bfloat16'\]"),
        ("[0, 4]}]", "[0, 4], revision: v1}]", "slice 1 has the key revision"),
        ("[0, 4]}]", "[0, 4]}]\n  base_model: org/a", "slice 1 has the key base_model"),
        ("[0, 4]}]", "[0, 4]}]\n  parameters: {t: 0.5}", "slice 1 has parameters"),
        (
            "[0, 4]}]",
            "[0, 4]}]\n  parameters: {scale: [{filter: [o_proj], value: 0}]}",
            "slice 1 has parameters",
        ),
        ("dtype: bfloat16", "parameters: {scale: 0.5}", "have parameters for all slices"),
    ],
)
def test_a_merge_that_is_no_growth_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    (tmp_path / "mk.yaml").write_text(SLICES.replace(old, new))
    with pytest.raises(UsageError, match=said):
        read_steps(tmp_path / "mk.yaml")


def expansion(*slices: tuple[int, int] | int, scale: str = "") -> str:
    """Return a recipe of mergekit: ranges of layers that are copied, layers that add nothing."""
    scale = scale or "[{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0}, {value: 1}]"
    lines = ["merge_method: passthrough", "slices:"]
    for one in slices:
        bounds = [one, one + 1] if isinstance(one, int) else list(one)
        added = f", parameters: {{scale: {scale}}}" if isinstance(one, int) else ""
        lines.append(f"- sources: [{{model: org/base, layer_range: {bounds}{added}}}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("slices", "steps"),
    [
        ([(0, 2), 1, (2, 4), 3], [("zero-depth", {"every": 2})]),
        ([(0, 1), 0, (1, 2), 1], [("zero-depth", {"every": 1})]),
        ([(0, 4), 3], [("zero-depth", {"every": 4})]),
        ([(0, 4), 3, 3], [("zero-depth", {"every": 4}), ("zero-depth", {"every": 5})]),
        ([(0, 1), 0, (1, 4)], [("zero-depth", {"layers": 5})]),
        ([(0, 1), 0, 0, (1, 2), 1, 1], [("zero-depth", {"layers": 6})]),
    ],
)
def test_slices_scaled_to_add_nothing_are_zero_depth(
    tmp_path: Path, slices: list[Any], steps: list[Any]
) -> None:
    found = read_steps(written(tmp_path, expansion(*slices)))
    assert found.steps == steps
    wanted: list[LayerSource] = []
    for one in slices:
        is_zero = isinstance(one, int)
        wanted += [LayerSource(one, "zero")] if is_zero else map(LayerSource, range(*one))
    assert found.passthrough is not None
    depth = found.passthrough.num_base_layers
    assert depth is not None
    assert list(planned(plan_of(depth), steps).layer_map) == wanted


@pytest.mark.parametrize(
    ("slices", "scale", "said"),
    [
        ([(0, 2), 0, (2, 4)], "", "elsewhere than zero-depth does"),
        ([(0, 3), 2, (3, 4)], "", "elsewhere than zero-depth does"),
        ([(0, 2), (1, 2), 1], "", "elsewhere than zero-depth does"),
        ([0, (0, 2)], "", "elsewhere than zero-depth does"),
        ([(0, 2), 1], "[{filter: o_proj, value: 0}]", "slice 2 has parameters that"),
        ([(0, 2), 1], "[{filter: o_proj, value: 0}, {value: 1}]", "slice 2 has parameters that"),
        ([(0, 2), 1], "[{value: 1}, {filter: o_proj, value: 0}]", "slice 2 has parameters that"),
        ([(0, 2), 1], "[3]", "slice 2 has parameters that"),
        ([(0, 2), 1], "0", "slice 2 has parameters that"),
    ],
)
def test_an_expansion_that_is_no_growth_is_refused(
    tmp_path: Path, slices: list[Any], scale: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_steps(written(tmp_path, expansion(*slices, scale=scale)))


def test_a_recipe_of_mergekit_is_followed_to_its_dtype(base: Path, tmp_path: Path) -> None:
    written(tmp_path, expansion((0, 2), 1, (2, 4), 3) + "\ndtype: bfloat16")
    done = call_hfgrow("apply", "base", "steps.yaml", "--out", "a", cwd=tmp_path)
    told = "That is: hfgrow zero-depth base --every 2 --dtype bfloat16"
    assert told in done.stderr.splitlines()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["dtype"] == "bfloat16"
    words = ("apply", "base", "steps.yaml", "--dtype", "float16", "--out", "b")
    assert call_hfgrow(*words, cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "float16"


def test_what_a_recipe_of_mergekit_says_besides_is_told(base: Path, tmp_path: Path) -> None:
    written(tmp_path, SLICES.replace("[2, 6]", "[2, 4]") + "tokenizer_source: union\nbase_model: x")
    done = call_hfgrow("apply", "base", "steps.yaml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = "Note: steps.yaml has tokenizer_source, base_model, which hfgrow does not read"
    assert told in done.stderr.splitlines()


def test_a_recipe_of_mergekit_for_another_depth_is_refused(base: Path, tmp_path: Path) -> None:
    written(tmp_path, expansion((0, 1), 0, (1, 2), 1))
    done = call_hfgrow("apply", "base", "steps.yaml", "--out", "a", cwd=tmp_path)
    assert done.returncode == 2
    assert "Error: the steps are for a model of 2 layers, the base has 4\n" in done.stderr
