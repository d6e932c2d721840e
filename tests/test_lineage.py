"""hfgrow.json: written, read back, composed over several growths, refused when damaged."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.errors import ModelError
from hfgrow.lineage import Link, Manifest, Measured, Model, WeightFile
from hfgrow.manifest import parse_manifest, read_manifest
from hfgrow.plan import GrowthStep, LayerSource
from tests.checkpoints import MakeCheckpoint
from tests.program import call_hfgrow

MEASURED = Measured("a probe text", 512, "float32", 2.5, 3.25, 4.0, 0.5, 0.75)


def model(num_layers: int, **more: Any) -> Model:
    files = {"model.safetensors": WeightFile(100 * num_layers, "ab" * 32)}
    return Model("name", num_layers, 10 * num_layers, 8 * num_layers, files, **more)


def link(num_layers: int, layer_map: list[int], **more: Any) -> Link:
    step = GrowthStep("stack", {"g": 2}, tuple(LayerSource(i) for i in layer_map), False)
    return Link(
        base=model(num_layers, repo_id="org/base", revision="0" * 40),
        steps=(step,),
        dtype=None,
        max_shard_nbytes=50 * 10**9,
        result=model(len(layer_map)),
        versions={"hfgrow": "0"},
        **more,
    )


CHAIN = (link(2, [0, 1, 0, 1], measured=MEASURED, card={"license": "mit"}), link(4, [3, 2, 1, 0]))
DOCUMENT: dict[str, Any] = json.loads(Manifest(CHAIN).to_json())


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert parse_manifest(DOCUMENT) == Manifest(CHAIN)


@given(st.lists(st.sampled_from(["copy", "zero"]), min_size=1, max_size=8))
def test_the_mode_of_every_layer_is_kept(modes: list[str]) -> None:
    layer_map = tuple(LayerSource(0, mode) for mode in modes)
    step = GrowthStep("stack", {}, layer_map, False)
    one = replace(link(1, [0]), steps=(step,), result=model(len(modes)))
    found = parse_manifest(json.loads(Manifest((one,)).to_json()))
    assert found.link.steps[0].layer_map == layer_map


@given(st.data())
def test_the_root_layer_map_composes_the_chain(data: st.DataObject) -> None:
    depth = data.draw(st.integers(1, 5))
    expected, links = list(range(depth)), []
    for _ in range(data.draw(st.integers(1, 4))):
        layer_map = data.draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=8))
        links.append(link(depth, layer_map))
        expected = [expected[i] for i in layer_map]
        depth = len(layer_map)
    assert Manifest(tuple(links)).root_layer_map == tuple(expected)


def test_two_growths_give_a_chain_of_two_with_the_composed_map(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = shutil.copytree(make_checkpoint(), tmp_path / "base")
    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "once")
    call_hfgrow("solar", tmp_path / "once", "--overlap", "3", "--out", tmp_path / "twice")
    manifest = read_manifest(tmp_path / "twice")
    assert manifest is not None
    assert [one.steps[0].operator for one in manifest.chain] == ["stack", "solar"]
    assert [one.base.name for one in manifest.chain] == ["base", "once"]
    once = [0, 1, 2, 3, 0, 1, 2, 3]
    assert manifest.root_layer_map == tuple(once[i] for i in [0, 1, 2, 3, 4, 3, 4, 5, 6, 7])
    finished = call_hfgrow("lineage", tmp_path / "twice", "--json")
    assert json.loads(finished.stdout)["root_layer_map"] == list(manifest.root_layer_map)


def test_the_config_carries_a_small_record(base: Path, tmp_path: Path) -> None:
    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hfgrow"] == {"schema": 1, "base": "base", "operators": ["stack"]}


def test_the_record_survives_load_and_save(base: Path, tmp_path: Path) -> None:
    from tests.checkpoints import load

    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    load(tmp_path / "out")[0].save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["hfgrow"]["operators"] == ["stack"]


def test_a_folder_without_the_file_has_no_lineage(base: Path) -> None:
    assert read_manifest(base) is None


def first(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["chain"][0]
    return found


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no schema": lambda m: m.pop("schema"),
    "a later schema": lambda m: m.update(schema=2),
    "no chain": lambda m: m.pop("chain"),
    "an empty chain": lambda m: m.update(chain=[]),
    "a chain that is no list": lambda m: m.update(chain=5),
    "a link that is no object": lambda m: m.update(chain=["x"]),
    "no base": lambda m: first(m).pop("base"),
    "no steps": lambda m: first(m).pop("steps"),
    "steps of text": lambda m: first(m).update(steps="stack"),
    "a depth of text": lambda m: first(m)["base"].update(num_hidden_layers="deep"),
    "a depth of null": lambda m: first(m)["base"].update(num_hidden_layers=None),
    "files of text": lambda m: first(m)["base"].update(files="x"),
    "a file without a size": lambda m: first(m)["base"].update(files={"a": {}}),
    "a layer outside the base": lambda m: first(m)["steps"][0].update(layer_map=[0, 2]),
    "a negative layer": lambda m: first(m)["steps"][0].update(layer_map=[0, -1]),
    "a layer of text": lambda m: first(m)["steps"][0].update(layer_map=["x"]),
    "a layer of three parts": lambda m: first(m)["steps"][0].update(layer_map=[[0, "copy", 1]]),
    "another depth than the map": lambda m: first(m)["result"].update(num_hidden_layers=5),
    "arguments of text": lambda m: first(m)["steps"][0].update(arguments="g=2"),
    "a measured text": lambda m: first(m)["measured"].update(base_loss="low"),
    "half a measurement": lambda m: first(m)["measured"].pop("base_loss"),
    "versions of text": lambda m: first(m).update(versions="1"),
    "a shard size of text": lambda m: first(m).update(max_shard_nbytes="big"),
    "a card of text": lambda m: first(m).update(card="mit"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_manifest_is_refused(damage: Callable[[dict[str, Any]], Any]) -> None:
    content = copy.deepcopy(DOCUMENT)
    damage(content)
    with pytest.raises(ModelError, match=r"hfgrow\.json"):
        parse_manifest(content)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1, "schema": 1}', "null"])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "hfgrow.json").write_text(text)
    with pytest.raises(ModelError, match=r"hfgrow\.json"):
        read_manifest(tmp_path)


def test_a_damaged_manifest_stops_a_growth_before_anything_is_written(
    base: Path, tmp_path: Path
) -> None:
    (base / "hfgrow.json").write_text('{"schema": 1}')
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 3
    assert "hfgrow.json is damaged" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
