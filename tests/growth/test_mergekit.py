"""Recipes of mergekit: what of them is a growth, what they say besides, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hfgrow.errors import UsageError
from hfgrow.growth.steps import (
    planned,
    read_steps,
)
from hfgrow.plan.plan import LayerSource
from tests.checkpoints import write_checkpoint
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
        ("[2, 6]", "[2, 6], parameters: {scale: [0, 1]}", "slice 2 has parameters"),
        (
            "org/base, layer_range: [2",
            "org/other, layer_range: [2",
            "layers of 2 models, org/base and org/other",
        ),
        (
            "{model: org/base, layer_range: [2",
            "{model: {model: {path: org/base, revision: v2}}, layer_range: [2",
            "layers of 2 models, org/base and org/base@v2",
        ),
        ("org/base", "org/base+org/lora", r"put an adapter on the model, org/base\+org/lora"),
        ("org/base", "{model: org/base, lora: org/lora}", r"the model, org/base\+org/lora"),
        (
            "org/base",
            "{model: {path: org/base}, lora: {path: org/lora}}",
            r"the model, org/base\+org/lora",
        ),
        ("slices:", "models: [{model: a/b}]\nrest:", "merge_method passthrough, of models"),
        ("slices:", "modules: {default: {}}\nrest:", "merge_method passthrough, of modules"),
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
        (
            "[0, 4]}]",
            "[0, 4]}]\n  parameters: {scale: [{filter: o_proj, value: [0, 1]}]}",
            "slice 1 has parameters",
        ),
        ("dtype: bfloat16", "parameters: {t: 1, scale: 2}", "slice 1 has parameters"),
        ("dtype: bfloat16", "parameters: [1]", "slice 1 has parameters"),
    ],
)
def test_a_merge_that_is_no_growth_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    (tmp_path / "mk.yaml").write_text(SLICES.replace(old, new))
    with pytest.raises(UsageError, match=said):
        read_steps(tmp_path / "mk.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("models: [{model: a/b}, {model: c/d}]\nmerge_method: linear", "linear, of models"),
        ("models: [{model: a/b}]\nmerge_method: task_arithmetic", "task_arithmetic, of models"),
        ("base_model: a/b\nexperts: [{source_model: a/b}]", "no merge_method, of experts"),
    ],
)
def test_a_merge_without_slices_is_refused_by_its_method(
    tmp_path: Path, content: str, said: str
) -> None:
    with pytest.raises(UsageError, match=f"are a recipe of mergekit with .*{said}$"):
        read_steps(written(tmp_path, content))


def test_a_gradient_of_scales_is_refused_as_a_parameter(tmp_path: Path) -> None:
    """It is the deepest that a recipe of mergekit in YAML goes: a list in the value of a filter."""
    recipe = expansion((0, 2), 1, scale="[{filter: o_proj, value: [0, 0.5]}, {value: 1}]")
    with pytest.raises(UsageError, match="slice 2 has parameters that hfgrow does not read"):
        read_steps(written(tmp_path, recipe))


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
    "entry",
    [
        "3",
        "{filter: o_proj, value: true}",
        "{filter: o_proj, value: .nan}",
        "{filter: o_proj, value: half}",
        "{filter: o_proj, value: 0.5, model: a}",
        # In the base and in what it grows into the numbers are others.
        "{filter: layers.3., value: 0}",
        "{filter: layers, value: 0}",
    ],
)
def test_a_scale_that_is_not_read_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(UsageError, match="slice 2 has parameters that hfgrow does not read"):
        read_steps(written(tmp_path, expansion((0, 2), 1, scale=f"[{entry}]")))


HALF = "[{filter: o_proj, value: 0.5}, {filter: down_proj, value: 0.5}, {value: 1.0}]"
ZERO, ENDS = "o_proj:0,down_proj:0", "o_proj:0.5,down_proj:0.5"


@pytest.mark.parametrize(
    ("slices", "scale", "pattern", "scales"),
    [
        ([(0, 2), 1], HALF, "[1:2]-[2:2]", [{"factors": ENDS, "layers": "[3]"}]),
        ([0, (0, 2), 1], HALF, "[1:1]-[1:2]-[2:2]", [{"factors": ENDS, "layers": "[1]-[4]"}]),
        # The last slice goes on to the norm and the head behind it.
        ([(0, 2), 1], "-1e-3", "[1:2]-[2:2]", [{"factors": "*:-0.001", "layers": "[3:4]"}]),
        ([(0, 2), 1], "[{value: 1}, {filter: o_proj, value: 0}]", "[1:2]-[2:2]", []),
        ([(0, 2), 1], "[{filter: o_proj, value: 0}]", "[1:2]-[2:2]", [{"factors": "o_proj:0"}]),
        # Where zero-depth has no layers that add nothing.
        ([(0, 2), 0, (2, 4)], "", "[1:2]-[1:1]-[3:4]", [{"factors": ZERO, "layers": "[3]"}]),
        ([0, (0, 2)], "", "[1:1]-[1:2]", [{"factors": ZERO, "layers": "[1]"}]),
    ],
)
def test_a_scale_of_a_slice_is_a_tensor_scale_behind(
    tmp_path: Path, slices: list[Any], scale: str, pattern: str, scales: list[dict[str, str]]
) -> None:
    found = read_steps(written(tmp_path, expansion(*slices, scale=scale))).steps
    assert found[0] == ("partial", {"pattern": pattern})
    wanted = [{"layers": "[3]", **one} for one in scales]
    assert found[1:] == [("tensor-scale", one) for one in wanted]


def test_a_scale_of_all_slices_counts_where_a_slice_has_none_for_the_tensor(tmp_path: Path) -> None:
    text = f"{expansion((0, 2), 1, scale=HALF[:-14] + ']')}\nparameters: {{scale: 2}}"
    assert read_steps(written(tmp_path, text)).steps[1:] == [
        ("tensor-scale", {"factors": "*:2", "layers": "[0:2]"}),
        ("tensor-scale", {"factors": f"{ENDS},*:2", "layers": "[3:4]"}),
    ]


def test_a_scale_of_layers_that_stand_once_grows_nothing(tmp_path: Path) -> None:
    found = read_steps(written(tmp_path, f"{expansion((0, 4))}\nparameters: {{scale: 0.9}}"))
    assert found.steps == [("tensor-scale", {"factors": "*:0.9"})]


def test_a_scaled_tensor_has_the_bits_that_torch_multiplies(tmp_path: Path) -> None:
    """That is what mergekit does, in the dtype of the tensor."""
    write_checkpoint(tmp_path / "base", "llama", dtype="bfloat16")
    text = expansion((0, 4), 3, scale="[{filter: q_proj, value: 0.7071067811865476}]")
    written(tmp_path, text)
    done = call_hfgrow("apply", "base", "steps.yaml", "--out", "grown", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = (
        "That is: hfgrow partial base '[1:4]-[4:4]', then tensor-scale q_proj:0.7071067811865476 "
        "--layers [5]"
    )
    assert told in done.stderr.splitlines()
    base, grown = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "grown"))
    weight = base["model.layers.3.self_attn.q_proj.weight"]
    scaled = grown["model.layers.4.self_attn.q_proj.weight"]
    assert torch.equal(scaled.view(torch.int16), (weight * 0.7071067811865476).view(torch.int16))
    kept = grown["model.layers.3.self_attn.q_proj.weight"]
    assert torch.equal(kept, weight)


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
