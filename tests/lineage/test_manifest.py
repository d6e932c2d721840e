"""hfgrow.json: written, read back, composed over several growths, refused when damaged.

The record of a chain with training in it: written, read back, and what it knows.
"""

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
from hfgrow.lineage.manifest import Link, Manifest, config_record
from hfgrow.lineage.reading import parse_manifest, read_manifest
from hfgrow.plan.plan import GrowthStep, LayerSource
from tests.checkpoints import MakeCheckpoint
from tests.links import CHAIN, DOCUMENT, GROWN, link, model
from tests.program import call_hfgrow
from tests.trained import (
    DECLARED,
    EVALUATED,
    HUB_TEXT,
    LOCAL_TEXT,
    cost,
    document_of,
    then_trained,
    trained_only,
    training,
)

WIDTHS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


DOCUMENTS = Path(__file__).parent / "documents"


def growths_of(manifest: Manifest) -> list[Link]:
    return [one for one in manifest.chain if isinstance(one, Link)]


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert parse_manifest(DOCUMENT) == Manifest(CHAIN)


@pytest.mark.parametrize("name", ["stacked.json", "chain.json"])
def test_a_document_of_an_older_hfgrow_is_written_again_byte_for_byte(name: str) -> None:
    """One that `hfgrow stack demo --g 4` wrote, and one that has every field of every record."""
    text = (DOCUMENTS / name).read_text(encoding="utf-8")
    assert parse_manifest(json.loads(text)).to_json() == text


def test_a_key_of_a_later_hfgrow_is_read_over() -> None:
    content = copy.deepcopy(DOCUMENT)
    first(content)["later"] = first(content)["base"]["later"] = {"a": [1]}
    assert parse_manifest(content) == Manifest(CHAIN)


@given(st.lists(st.sampled_from(["copy", "zero"]), min_size=1, max_size=8))
def test_the_mode_of_every_layer_is_kept(modes: list[str]) -> None:
    layer_map = tuple(LayerSource(0, mode) for mode in modes)
    step = GrowthStep("stack", {}, layer_map, False)
    one = replace(link(1, [0]), steps=(step,), result=model(len(modes)))
    found = parse_manifest(json.loads(Manifest((one,)).to_json()))
    assert found.growth.steps[0].layer_map == layer_map


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


def test_the_modes_of_several_steps_are_composed() -> None:
    zeros = (LayerSource(0), LayerSource(0, "zero"), LayerSource(1))
    copies = tuple(LayerSource(i) for i in (2, 1, 1, 0))
    steps = (GrowthStep("a", {}, zeros, True), GrowthStep("b", {}, copies, False))
    found = replace(link(2, [0]), steps=steps)
    zero = LayerSource(0, "zero")
    assert found.layer_sources == (LayerSource(1), zero, zero, LayerSource(0))
    assert found.changes_layers


def test_the_layer_map_of_the_base_itself_changes_no_layer() -> None:
    assert not link(2, [0, 1]).changes_layers
    silent = (GrowthStep("zero-depth", {}, (LayerSource(0, "zero"), LayerSource(1)), True),)
    assert replace(link(2, [0, 1]), steps=silent).changes_layers


ARGUMENT_VALUES: list[object] = [
    0,
    -3,
    2**53 - 1,
    0.1,
    1e-5,
    -2.5,
    1e15,
    True,
    False,
    "1,2",
    "head",
]


@pytest.mark.parametrize("value", ARGUMENT_VALUES, ids=repr)
def test_an_argument_is_read_back_with_its_type(value: object) -> None:
    step = replace(CHAIN[0].steps[0], arguments={"key": value})
    text = Manifest((replace(CHAIN[0], steps=(step,)),)).to_json()
    found = parse_manifest(json.loads(text)).growth.steps[0].arguments["key"]
    assert (found, type(found)) == (value, type(value))


def test_a_record_of_a_time_before_width_is_read() -> None:
    content = copy.deepcopy(DOCUMENT)
    for key in ("mean_kl", "max_abs_logit"):
        del first(content)["measured"][key]
    del first(content)["num_computed"]
    found = parse_manifest(content)
    measured = growths_of(found)[0].measured
    assert measured is not None
    assert (measured.mean_kl, measured.max_abs_logit) == (None, None)
    assert set(found.root.widths.values()) == {None}
    assert parse_manifest(json.loads(found.to_json())) == found


def test_the_widths_of_a_model_are_recorded(base: Path, tmp_path: Path) -> None:
    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.root.widths == manifest.link.result.widths == WIDTHS


def test_the_kinds_of_layers_are_recorded_where_there_are_several(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    call_hfgrow("stack", make_checkpoint("gemma3_text"), "--g", "2", "--out", tmp_path / "out")
    call_hfgrow("stack", make_checkpoint("llama"), "--g", "2", "--out", tmp_path / "plain")
    several, one = (read_manifest(tmp_path / name) for name in ("out", "plain"))
    assert several is not None
    assert one is not None
    kinds = several.root.layer_types
    assert kinds is not None
    assert kinds[:3] == ("sliding_attention", "sliding_attention", "full_attention")
    assert several.link.result.layer_types == (*kinds, *kinds)
    assert '"layer_types": "sliding_attention' in (tmp_path / "out" / "hfgrow.json").read_text()
    assert one.root.layer_types is None


def test_a_growth_that_computes_records_the_versions_of_what_computes(
    base: Path, tmp_path: Path
) -> None:
    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "copied")
    words = ("stack", base, "--g", "2", "--dtype", "bfloat16", "--out", tmp_path / "converted")
    call_hfgrow(*words)
    copied, converted = (read_manifest(tmp_path / name) for name in ("copied", "converted"))
    assert copied is not None
    assert converted is not None
    assert set(copied.link.versions) == {"hfgrow", "python"}
    assert set(converted.link.versions) == {"hfgrow", "python", "numpy"}
    assert converted.growth.num_computed == 0


def test_two_growths_give_a_chain_of_two_with_the_composed_map(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = shutil.copytree(make_checkpoint(), tmp_path / "base")
    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "once")
    call_hfgrow("solar", tmp_path / "once", "--overlap", "3", "--out", tmp_path / "twice")
    manifest = read_manifest(tmp_path / "twice")
    assert manifest is not None
    assert [one.steps[0].operator for one in growths_of(manifest)] == ["stack", "solar"]
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
    "an argument of null": lambda m: first(m)["steps"][0].update(arguments={"g": None}),
    "a nested argument": lambda m: first(m)["steps"][0].update(arguments={"g": {"g": 2}}),
    "a list argument": lambda m: first(m)["steps"][0].update(arguments={"g": [2]}),
    "an argument that is no number": lambda m: first(m)["steps"][0].update(
        arguments={"noise": float("nan")}
    ),
    "an infinite argument": lambda m: first(m)["steps"][0].update(arguments={"a": float("inf")}),
    "a huge argument": lambda m: first(m)["steps"][0].update(arguments={"seed": 2**53}),
    "a huge negative argument": lambda m: first(m)["steps"][0].update(arguments={"a": -1e16}),
    "an argument of 400 digits": lambda m: first(m)["steps"][0].update(arguments={"a": 10**400}),
    "axes of text": lambda m: first(m)["steps"][0].update(axes="hidden"),
    "an axis without a size": lambda m: first(m)["steps"][0].update(axes={"hidden": "0-3"}),
    "an axis with markup": lambda m: first(m)["steps"][0].update(axes={"<b>": "4 -> 0-3"}),
    "an axis of no units": lambda m: first(m)["steps"][0].update(axes={"hidden": "4 -> "}),
    "a unit outside the base": lambda m: first(m)["steps"][0].update(axes={"hidden": "4 -> 0-4"}),
    "units that go down": lambda m: first(m)["steps"][0].update(axes={"hidden": "4 -> 3-1"}),
    "kinds of layers of markup": lambda m: first(m)["base"].update(layer_types="<b> a"),
    "a width of text": lambda m: first(m)["base"].update(hidden_size="wide"),
    "a width of zero": lambda m: first(m)["base"].update(hidden_size=0),
    "a width that is true": lambda m: first(m)["base"].update(head_dim=True),
    "widths that do not fit": lambda m: (
        first(m)["result"].update(hidden_size=8),
        m["chain"][1]["base"].update(hidden_size=9),
    ),
    "a negative number of computed tensors": lambda m: first(m).update(num_computed=-1),
    "a zero row of no layer": lambda m: first(m).update(zero_rows={"mlp.up_proj": [4]}),
    "zero rows of markup": lambda m: first(m).update(zero_rows={"<b>": [0]}),
    "zero rows nowhere": lambda m: first(m).update(zero_rows={"mlp.up_proj": []}),
    "a beat of another family": lambda m: first(m).update(
        off_beat={"model_type": "llama", "pattern": None}
    ),
    "a pattern of a command": lambda m: first(m).update(
        off_beat={"model_type": "smollm3", "pattern": "$(id)"}
    ),
    "a KL of text": lambda m: first(m)["measured"].update(mean_kl="small"),
    "a KL that is no number": lambda m: first(m)["measured"].update(mean_kl=float("nan")),
    "a negative KL": lambda m: first(m)["measured"].update(mean_kl=-1),
    "an infinite logit": lambda m: first(m)["measured"].update(max_abs_logit=float("inf")),
    "a loss of 400 digits": lambda m: first(m)["measured"].update(base_loss=10**400),
    "a loss that is no number": lambda m: first(m)["measured"].update(grown_loss=float("nan")),
    "an agreement above 1": lambda m: first(m)["measured"].update(argmax_agreement=1.5),
    "measured in no dtype": lambda m: first(m)["measured"].update(dtype="float8"),
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


@pytest.mark.parametrize(
    "manifest",
    [
        then_trained(GROWN),
        trained_only(),
        trained_only(evaluations=()),
        replace(then_trained(GROWN), root_compute=DECLARED),
        then_trained(GROWN).followed_by(link(4, [3, 2, 1, 0])),
        trained_only(evaluations=(replace(EVALUATED, before_growth=None, recovered_tokens=None),)),
        trained_only(compute=cost(40, exact_flops=None, seconds=None, devices=None, device=None)),
    ],
    ids=["grown", "only", "no text", "declared", "grown again", "no growth", "little known"],
)
def test_a_chain_with_training_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    assert parse_manifest(document_of(manifest)) == manifest


def test_what_a_run_calls_its_parts_is_written_so_that_it_can_be_read() -> None:
    written = trained_only(
        trainable="`layers`.*|$(x)",
        data=(replace(LOCAL_TEXT, label="a\x1b[31m" + "x" * 400),),
        compute=cost(40, device="GPU <0>"),
    )
    found = parse_manifest(document_of(written)).trainings[0]
    assert found.trainable == "_layers_.*__(x)"
    assert found.compute.device == "GPU _0_"
    assert len(found.data[0].label) == 300


def test_training_keeps_the_layers() -> None:
    manifest = then_trained(GROWN).followed_by(link(4, [3, 2, 1, 0]))
    assert manifest.root_layer_map == (1, 0, 1, 0)
    assert not manifest.trainings[0].changes_layers


def test_a_chain_knows_its_last_growth_and_its_trainings() -> None:
    manifest = then_trained(GROWN)
    assert manifest.last_growth == GROWN
    assert manifest.trainings == manifest.chain[1:]
    assert trained_only().last_growth is None


def test_what_only_a_growth_has_is_refused_of_a_training() -> None:
    with pytest.raises(ModelError, match="cannot be derived"):
        _ = then_trained(GROWN).growth
    assert Manifest((GROWN,)).growth == GROWN


def test_the_hashes_of_a_trained_model_can_be_filled_in() -> None:
    manifest = replace(then_trained(GROWN), root_compute=DECLARED)
    found = manifest.with_result_files({})
    assert found.link.result.files == {}
    assert (found.chain[0], found.root_compute) == (GROWN, DECLARED)


def test_the_record_in_the_config_says_how_far_a_model_was_trained() -> None:
    assert config_record(trained_only().link) == {
        "schema": 1,
        "base": "org/base",
        "trained_tokens": 1_000_000,
        "base_revision": "0" * 40,
    }


def test_a_source_on_the_hub_is_told_from_a_text_of_that_name() -> None:
    local: dict[str, Any] = {"kind": "local", "dataset": None, "label": "texts"}
    manifest = trained_only(data=(replace(HUB_TEXT, **local),))
    found = parse_manifest(document_of(manifest)).trainings[0].data[0]
    assert (found.kind, found.dataset) == ("local", None)


def test_models_of_one_training_have_the_same_sizes() -> None:
    one = training(GROWN.base, GROWN.result, compute=cost(20))
    with pytest.raises(ModelError, match="training changes no size"):
        parse_manifest(document_of(Manifest((one,))))
