"""The card: made from hfgrow.json alone, the same every time, true, and free of what is private."""

import getpass
import json
import shutil
import socket
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.growth.publish import own_files
from hfgrow.lineage.card import card_files, licence_note, metadata
from hfgrow.lineage.describe import command_line, layer_rows
from hfgrow.lineage.manifest import Link, Manifest
from hfgrow.lineage.reading import parse_manifest, read_manifest
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.plan import LayerSource
from tests.checkpoints import MakeCheckpoint
from tests.links import CHAIN, DOCUMENT, MEASURED, link
from tests.program import call_hfgrow

SVG = "{http://www.w3.org/2000/svg}"


def block_of(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


@pytest.fixture(scope="module")
def grown(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    base = Path(shutil.copytree(make_checkpoint(), folder / "base"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en, de]\n---\n# Base\n")
    finished = call_hfgrow("stack", base, "--g", "3", "--out", folder / "base-stack-g3")
    assert finished.returncode == 0, finished.stderr
    return folder / "base-stack-g3"


def test_the_metadata_are_the_ones_the_hub_reads(grown: Path) -> None:
    assert block_of((grown / "README.md").read_text()) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["hfgrow", "model-growth", "depth-upscaling", "stacking"],
        "license": "apache-2.0",
        "language": ["en", "de"],
    }


def test_a_base_on_the_hub_is_named_as_base_model() -> None:
    block = metadata(Manifest((link(2, [0, 1, 0, 1]),)))
    assert block["base_model"] == "org/base"
    assert block["base_model_relation"] == "finetune"


def test_a_base_on_this_machine_is_not_named_as_base_model(grown: Path) -> None:
    manifest = read_manifest(grown)
    assert manifest is not None
    assert "base_model" not in metadata(manifest)


@pytest.mark.case("G4")
def test_nothing_of_this_machine_is_in_the_files_to_push(grown: Path) -> None:
    """G4: no path, no host, no user; .hfgrow-base is never pushed."""
    for name in ("README.md", "hfgrow.json", "layers.svg", "config.json"):
        text = (grown / name).read_text()
        assert str(grown.parent) not in text
        assert "/tmp/" not in text
        assert "/home" not in text
        assert socket.gethostname() not in text
        assert len(getpass.getuser()) < 5 or getpass.getuser() not in text


def test_the_same_manifest_gives_the_same_card() -> None:
    one, two = (card_files(parse_manifest(json.loads(json.dumps(DOCUMENT)))) for _ in range(2))
    assert one == two


def test_the_card_can_be_written_again_from_the_manifest(grown: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(grown, tmp_path / "copy"))
    for name in ("README.md", "layers.svg"):
        (copy / name).unlink()
    assert call_hfgrow("card", copy).returncode == 0
    for name in ("README.md", "layers.svg"):
        assert (copy / name).read_text() == (grown / name).read_text()


def test_the_card_says_what_was_done(grown: Path) -> None:
    card = (grown / "README.md").read_text()
    assert "grown from 4 to 12 layers by `stack --g 3`" in card
    assert "not function preserving" in card
    assert OPERATORS["stack"].paper in card
    assert "| 0-3 | 0-3 |" in card
    assert "| 8-11 | 0-3 |" in card


def test_the_card_shows_the_measurement() -> None:
    card = card_files(Manifest(CHAIN[:1]))["README.md"]
    assert "| 2.5000 | 3.2500 |" in card


@pytest.mark.case("G8")
@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({}, "names no licence; ask its authors"),
        ({"license": "other"}, "licence is one of its own; read whether"),
        (
            {"license": "other", "license_name": "llama3", "license_link": "LICENSE"},
            "licence is llama3 (LICENSE); read whether",
        ),
        ({"license": "cc-by-nc-4.0"}, "allows no commercial use"),
        ({"license": "fair-noncommercial-research-license"}, "allows no commercial use"),
        ({"license": "cc-by-nd-4.0"}, "lets nobody share"),
    ],
    ids=str,
)
def test_a_licence_that_asks_for_a_look_is_told_before_the_push_and_in_the_card(
    card: dict[str, str], said: str
) -> None:
    assert said in licence_note(card, is_from_scratch=False)
    shown = card_files(Manifest((replace(CHAIN[0], card=card),)))["README.md"]
    assert said in shown
    assert {key: block_of(shown)[key] for key in card} == card


@pytest.mark.parametrize("licence", ["apache-2.0", "mit", "cc-by-4.0", "openrail++"])
def test_a_licence_that_says_it_all_is_only_copied(licence: str) -> None:
    assert not licence_note({"license": licence}, is_from_scratch=False)


@pytest.mark.case("G8")
def test_a_missing_licence_is_said_and_not_invented() -> None:
    card = card_files(Manifest((replace(CHAIN[0], card={}),)))["README.md"]
    assert "license" not in block_of(card)
    assert "names no licence" in card


def test_the_commands_of_the_card_can_be_typed(grown: Path, tmp_path: Path) -> None:
    """The lines of "How to reproduce" give the same weights where the base lies beside."""
    import shlex

    manifest = read_manifest(grown)
    assert manifest is not None
    shutil.copytree(grown.parent / "base", tmp_path / "base")
    words = shlex.split(command_line(manifest.growth))
    assert words[0] == "hfgrow"
    finished = call_hfgrow(*words[1:], "--out", "again", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    weights = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert weights == (grown / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["a<b>&\"c'", "[/foo]", "\x1b[31m", "\ud800", "x" * 500, "]]>"])
def test_the_picture_is_well_formed_whatever_the_names(name: str) -> None:
    one = link(2, [0, 1, 0, 1])
    one = replace(one, base=replace(one.base, name=name), result=replace(one.result, name=name))
    root = ElementTree.fromstring(card_files(Manifest((one,)))["layers.svg"].encode())
    assert root.tag == f"{SVG}svg"


def test_a_picture_of_the_card_is_escaped(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    base = shutil.copytree(make_checkpoint(), tmp_path / "a<b>&c")
    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "<svg onload=x>")
    picture = (tmp_path / "<svg onload=x>" / "layers.svg").read_text()
    assert len(list(ElementTree.fromstring(picture).iter(f"{SVG}svg"))) == 1
    assert "<svg onload" not in picture


@given(
    st.lists(st.builds(LayerSource, st.integers(0, 9), st.sampled_from(["copy", "zero", "random"])))
)
def test_the_rows_of_a_layer_map_say_all_of_it(sources: list[LayerSource]) -> None:
    told: list[LayerSource] = []
    for left, right in layer_rows(sources):
        first, _, last = left.partition("-")
        count = int(last or first) - int(first) + 1
        assert int(first) == len(told)
        if right == "none, fresh weights":
            told += sources[len(told) : len(told) + count]
            assert {source.mode for source in told[-count:]} == {"random"}
            continue
        mode = "zero" if right.endswith(", adding nothing yet") else "copy"
        right, _, times = right.removesuffix(", adding nothing yet").partition(", ")
        low, _, high = right.partition("-")
        layers = [int(low)] * count if times else range(int(low), int(high or low) + 1)
        assert times in ("", f"{count} times")
        told += [LayerSource(layer, mode) for layer in layers]
    assert told == sources


def wider(**changes: Any) -> Link:
    """A growth in width of a record: no layer changes."""
    narrow = link(2, [0, 1])
    sizes: dict[str, Any] = dict.fromkeys(
        ("intermediate_size", "num_attention_heads", "head_dim"), 16
    )
    return replace(
        narrow,
        base=replace(narrow.base, hidden_size=576, **sizes),
        result=replace(narrow.result, hidden_size=1152, num_parameters=10**6, **sizes),
        steps=(replace(narrow.steps[0], operator="hyperclone", arguments={"g": 2}),),
        num_computed=7,
        **changes,
    )


def test_the_card_of_a_growth_in_width_tells_widths_and_no_layers(tmp_path: Path) -> None:
    files = card_files(Manifest((wider(),)))
    assert list(files) == ["README.md"]
    card = files["README.md"]
    assert "grown from hidden_size 576 to 1152 by `hyperclone --g 2`" in card
    assert "| hidden_size | 576 | 1152 |" in card
    assert "7 tensors are computed from the base's" in card
    assert "layers.svg" not in own_files(tmp_path, Manifest((wider(),)))
    assert "layers.svg" in own_files(tmp_path, Manifest(CHAIN))
    for absent in (
        "layer map",
        "layers.svg",
        "connection rate",
        "intermediate_size",
        "to 2 layers",
    ):
        assert absent not in card


def test_the_card_shows_the_measurement_that_an_older_one_lacks() -> None:
    measured = replace(MEASURED, mean_kl=None, max_abs_logit=None)
    old, new = (
        card_files(Manifest((replace(CHAIN[0], measured=one),)))["README.md"]
        for one in (measured, MEASURED)
    )
    assert "KL(base, grown) is 0.125 nats" in new
    assert "4 at most (the base's largest is 20)" in new
    assert "KL" not in old


def test_the_command_of_several_steps_takes_the_file_in_its_comment(
    grown: Path, tmp_path: Path
) -> None:
    steps = [{"stack": {"g": 2}}, {"partial": {"pattern": "[1:4]-[5:8]*2"}}]
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(steps))
    shutil.copytree(grown.parent / "base", tmp_path / "base")
    words = ("apply", "given.yaml", "base", "--max-shard-size", "60KB")
    assert call_hfgrow(*words, "--out", "once", cwd=tmp_path).returncode == 0
    manifest = read_manifest(tmp_path / "once")
    assert manifest is not None
    command, _, comment = command_line(manifest.growth).partition("  # steps.yaml: ")
    assert command in (tmp_path / "once" / "README.md").read_text()
    (tmp_path / "steps.yaml").write_text(comment)
    again = call_hfgrow(*command.split()[1:], "--out", "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for path in (tmp_path / "once").glob("*.safetensors"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
