"""The record of a chain with training in it: written, read back, and what it knows."""

from dataclasses import replace
from typing import Any

import pytest

from hfgrow.errors import ModelError
from hfgrow.lineage.manifest import Manifest, config_record
from hfgrow.lineage.read import parse_manifest
from tests.links import GROWN, link
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
