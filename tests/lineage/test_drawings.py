"""The pictures of a growth say what its record says, and where nothing was copied, that too."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.lineage.card import card_files
from hfgrow.lineage.drawings import GrownAxis, layer_picture, width_picture
from hfgrow.lineage.manifest import Manifest
from hfgrow.plan.axes import FRESH, AxisMap, copied, padded, without_factors
from hfgrow.plan.plan import LayerSource
from tests.links import link, model

SVG = "{http://www.w3.org/2000/svg}"
ZERO_DEPTH = [LayerSource(i // 2, "zero" if i % 2 else "copy") for i in range(6)]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in parsed(svg).iter(f"{SVG}text")]


def hatched(svg: str) -> int:
    return svg.count('fill="url(#hatched)"')


def of_axis(axis_map: AxisMap, *, adds_nothing: bool = True) -> str:
    axis = GrownAxis("hidden_size", without_factors(axis_map), adds_nothing)
    return width_picture([axis], "title")


@given(st.integers(1, 40), st.data())
def test_there_is_a_box_for_every_layer_and_a_line_for_every_copy(
    depth: int, data: st.DataObject
) -> None:
    layers = data.draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=60))
    root = parsed(layer_picture(depth, [LayerSource(i) for i in layers], "title"))
    assert len(root.findall(f"{SVG}path")) == len(layers)
    assert len(root.findall(f"{SVG}rect")) == 1 + depth + len(layers)


def test_layers_that_add_nothing_are_hatched_and_the_legend_says_so() -> None:
    picture = layer_picture(3, ZERO_DEPTH, "title")
    assert hatched(picture) == 3 + 1
    assert "hatched: a copy that adds nothing yet" in texts(picture)


def test_fresh_layers_are_grey_and_come_from_nowhere() -> None:
    picture = layer_picture(1, [LayerSource(0), LayerSource(0, "random")], "title")
    assert len(parsed(picture).findall(f"{SVG}path")) == 1
    assert "grey: fresh weights" in texts(picture)


def test_a_mean_of_two_layers_has_two_lines() -> None:
    picture = layer_picture(2, [LayerSource(0), LayerSource(0, "average"), LayerSource(1)], "t")
    assert len(parsed(picture).findall(f"{SVG}path")) == 4
    assert "two lines: the mean of a layer and the one above it" in texts(picture)


def test_plain_copies_need_no_legend() -> None:
    picture = layer_picture(2, [LayerSource(i) for i in (0, 1, 0, 1)], "title")
    assert not hatched(picture)
    assert not [text for text in texts(picture) if ":" in text and "layers" not in text]


@pytest.mark.parametrize("depth", [3, 200])
def test_layer_0_is_named_however_many_there_are(depth: int) -> None:
    picture = layer_picture(depth, [LayerSource(i % depth) for i in range(2 * depth)], "title")
    assert texts(picture).count("layer 0") == 2
    assert {str(depth - 1), str(2 * depth - 1)} <= set(texts(picture))


def test_the_kinds_of_layers_are_marked_in_base_and_grown_model() -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    layers = [LayerSource(i) for i in (0, 1, 2, 0, 1, 2)]
    picture = layer_picture(3, layers, "title", kinds)
    assert picture.count('fill="#111"') == 1 + 2 + 1
    assert texts(picture)[-2:] == ["sliding attention (4)", "full attention (2)"]


def test_layers_of_one_kind_have_no_mark() -> None:
    layers = [LayerSource(0), LayerSource(1)]
    one_kind = layer_picture(2, layers, "title", ["full_attention"] * 2)
    assert one_kind == layer_picture(2, layers, "title")


def test_copies_and_new_units_of_an_axis_are_told_apart() -> None:
    tiles = of_axis(copied(64, [*range(64)] * 2))
    assert texts(tiles).count("0-63") == 3
    assert not hatched(tiles)
    wider = of_axis(copied(64, padded(64, 96)))
    assert "32 new" in texts(wider)
    assert "hatched: new units, which contribute nothing yet" in texts(wider)


def test_new_units_that_change_the_function_are_not_said_to_contribute_nothing() -> None:
    picture = of_axis(copied(64, padded(64, 96)), adds_nothing=False)
    assert not hatched(picture)
    assert "grey: new units" in texts(picture)


def test_copies_in_no_order_are_counted() -> None:
    sources = [*range(200), *(i * 77 % 200 for i in range(150))]
    picture = of_axis(copied(200, sources))
    assert "150 copies" in texts(picture)
    assert "mosaic: copies of units in no order" in texts(picture)


@given(st.lists(st.integers(-1, 9), min_size=1, max_size=400))
def test_every_unit_of_an_axis_is_in_its_record(sources: Sequence[int]) -> None:
    told = without_factors(copied(10, sources))
    assert told.size == len(sources)
    new = sum(span.length for span in told.spans if span.start == FRESH)
    assert new == sum(source == FRESH for source in sources)
    parsed(width_picture([GrownAxis("ffn", told, True)], "title"))


def test_a_long_table_of_layers_is_folded() -> None:
    deep = link(20, list(range(20)))
    layers = tuple(LayerSource(i // 2, "zero" if i % 2 else "copy") for i in range(40))
    step = replace(deep.steps[0], layer_map=layers)
    card = card_files(Manifest((replace(deep, steps=(step,), result=model(40)),)))["README.md"]
    assert "<details><summary>The 40 rows of the layer map</summary>" in card
    assert "<details>" not in card_files(Manifest((link(2, [0, 1, 0, 1]),)))["README.md"]
