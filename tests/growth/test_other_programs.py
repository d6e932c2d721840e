"""What other programs have wrong about a grown model: found by the plan, told by plan and card."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.read import read
from hfgrow.growth.memory import grow_state_dict
from hfgrow.growth.steps import planned
from hfgrow.lineage.card_sections import elsewhere_section
from hfgrow.lineage.reading import parse_manifest, read_manifest
from hfgrow.plan.elsewhere import OffBeat, off_beat, zero_rows
from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint, load
from tests.growths import COMMANDS, Case
from tests.links import link
from tests.program import call_hfgrow

typed_step = import_module("hfgrow_cli.typed_steps").typed_step


@pytest.fixture
def gemma3(tmp_path: Path, make_checkpoint: MakeCheckpoint) -> Path:
    """A tiny Gemma 3 of 8 layers, of which the sixth has no window, in a folder of its own."""
    made = make_checkpoint("gemma3_text", num_hidden_layers=8, sliding_window_pattern=6)
    return Path(shutil.copytree(made, tmp_path / "base"))


def found_in(base: Path, step: str) -> OffBeat | None:
    plan = read(LocalFolder(base))
    return off_beat(plan, planned(plan, [typed_step(step)]))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("stack --g 2", OffBeat("gemma3_text", "[1:6]*2-[7:8]")),
        ("interpolate --g 4", OffBeat("gemma3_text", "[1:6]*5-[7:8]")),
        ("partial [1:6]*2-[7:8]", None),
        ("hyperclone --g 2", None),
    ],
)
def test_a_gemma_3_is_off_the_beat_of_six(
    gemma3: Path, step: str, expected: OffBeat | None
) -> None:
    assert found_in(gemma3, step) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("zero-depth --g 2", OffBeat("smollm3", "[1:4]*2")),
        ("stack --layers 6", OffBeat("smollm3", "[1:4]*2")),
        ("stack --g 2", None),
    ],
)
def test_a_smollm3_is_off_the_beat_of_four(
    make_checkpoint: MakeCheckpoint, step: str, expected: OffBeat | None
) -> None:
    assert found_in(make_checkpoint("smollm3", no_rope_layer_interval=4), step) == expected


def test_a_base_that_is_off_the_beat_has_no_growth_on_it(make_checkpoint: MakeCheckpoint) -> None:
    base = make_checkpoint("smollm3", no_rope_layer_interval=3)
    assert found_in(base, "stack --g 2") == OffBeat("smollm3", None)


def test_plan_and_card_say_what_is_off_the_beat_and_what_is_not(gemma3: Path) -> None:
    words = ("stack", gemma3, "--g", "2", "--out", gemma3.parent / "grown")
    plan = call_hfgrow(*words, "--dry-run")
    assert "hfgrow partial MODEL '[1:6]*2-[7:8]'" in plan.stdout
    done = call_hfgrow(*words)
    assert "hfgrow partial MODEL '[1:6]*2-[7:8]'" in done.stderr
    card = (gemma3.parent / "grown" / "README.md").read_text()
    assert "llama.cpp and mlx-lm look in every sixth layer of a Gemma 3" in card
    assert "`hfgrow partial base '[1:6]*2-[7:8]'`." in card


def test_an_untrue_pattern_is_not_left_in_the_config(gemma3: Path) -> None:
    out = gemma3.parent / "grown"
    assert call_hfgrow("stack", gemma3, "--g", "2", "--out", out).returncode == 0
    assert "sliding_window_pattern" in json.loads((gemma3 / "config.json").read_text())
    assert "sliding_window_pattern" not in json.loads((out / "config.json").read_text())


@pytest.mark.parametrize("operator", OPERATORS)
def test_rows_of_zeros_are_known_before_a_weight_is_read(
    operator: str, make_checkpoint: MakeCheckpoint
) -> None:
    case = Case(operator, "llama", tied=operator == "untie", sharded=False, grouped=True)
    base = make_checkpoint(**case.base("float32"))
    words = " ".join(COMMANDS[operator])
    steps = [typed_step(f"{operator} {words}")]
    if operator == "branch-scale":
        steps = [typed_step("stack --g 2"), *steps]
    tensors, _ = grow_state_dict(load(base)[0], steps)
    seen = {
        name.removesuffix(".weight")
        for name, tensor in tensors.items()
        if "layers" in name and tensor.ndim == 2 and bool((tensor == 0).all(dim=1).any())
    }
    plan = planned(read(LocalFolder(base)), steps)
    told = {
        f"model.layers.{layer}.{module}"
        for module, layers in zero_rows(plan).items()
        for layer in layers
    }
    assert told == seen


def test_the_card_names_the_modules_that_adapters_leave_out(base: Path) -> None:
    out = base.parent / "grown"
    assert call_hfgrow("zero-depth", base, "--g", "2", "--out", out).returncode == 0
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, list[str]] = {}
    exec(code, names)  # What a reader of the card would run.
    expected = {
        f"layers.{i}.{m}" for i in (1, 3, 5, 7) for m in ("self_attn.o_proj", "mlp.down_proj")
    }
    assert set(names["zero"]) == expected
    manifest = read_manifest(out)
    assert manifest is not None
    assert parse_manifest(json.loads(manifest.to_json())) == manifest


def test_layers_of_the_card_are_a_range_where_they_are_one() -> None:
    zeros = {"mlp.down_proj": (3, 4, 7), "self_attn.o_proj": (0, 1, 2), "self_attn.q_proj": (5,)}
    section = elsewhere_section(link(2, [0, 1] * 4, zero_rows=zeros), is_trained=False)
    lines = "\n".join(section)
    assert 'zero = [f"layers.{i}.{name}" for i in [3, 4, 7] for name in ["mlp.down_proj"]]' in lines
    assert 'for i in range(0, 3) for name in ["self_attn.o_proj"]' in lines
    assert 'for i in range(5, 6) for name in ["self_attn.q_proj"]' in lines


def test_training_leaves_no_zeros_to_tell_of() -> None:
    grown = link(2, [0, 1] * 2, zero_rows={"mlp.down_proj": (1, 3)})
    assert elsewhere_section(grown, is_trained=True) == []
