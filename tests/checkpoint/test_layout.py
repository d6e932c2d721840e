"""Where every byte goes: shards, offsets, runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfgrow.checkpoint.files import LocalFolder
from hfgrow.checkpoint.header import BLOCK_NBYTES
from hfgrow.checkpoint.layout import (
    _MAX_TENSORS_PER_SHARD,
    CopyRun,
    Layout,
    lay_out,
    parse_nbytes,
    runs,
)
from hfgrow.checkpoint.read import read
from hfgrow.errors import UsageError
from hfgrow.plan.depth import apply_layer_map
from hfgrow.plan.operators.stacking import stack
from hfgrow.plan.plan import GrowthPlan, GrowthStep, stored_in
from tests.checkpoints import MakeCheckpoint
from tests.layer_plans import plan_of

LAYER_MAPS = st.lists(st.integers(0, 3), min_size=1, max_size=10)


@pytest.fixture(scope="module", params=[False, True], ids=["one file", "shards"])
def plan(request: pytest.FixtureRequest, make_checkpoint: MakeCheckpoint) -> GrowthPlan:
    return read(LocalFolder(make_checkpoint(sharded=request.param)))


def grow(plan: GrowthPlan, layer_map: list[int]) -> GrowthPlan:
    return apply_layer_map(plan, layer_map, GrowthStep("test", {}, (), False))


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1", 1),
        ("5GB", 5 * 10**9),
        ("5 gb", 5 * 10**9),
        ("500MB", 500 * 10**6),
        ("2GiB", 2 << 30),
        ("3kib", 3 << 10),
        ("1TB", 10**12),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, nbytes: int) -> None:
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize(
    "text", ["", "0", "0GB", "-1GB", "1.5GB", "1e3", "GB", "5XB", "5 G B", "9" * 30, "\x1b[31m"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_nbytes(text)


@given(layer_map=LAYER_MAPS, limit=st.integers(1, 200_000))
def test_every_tensor_is_placed_once_and_no_shard_is_empty(
    plan: GrowthPlan, layer_map: list[int], limit: int
) -> None:
    grown = grow(plan, layer_map)
    layout = lay_out(grown, limit)
    placed = [tensor.name for shard in layout.shards for tensor in shard.tensors]
    assert sorted(placed) == sorted(grown.tensors)
    for shard in layout.shards:
        sizes = [tensor.tensor.nbytes for tensor in shard.tensors]
        assert sizes
        assert sum(sizes) <= limit or len(sizes) == 1


@given(layer_map=LAYER_MAPS, limit=st.integers(10_000, 200_000))
def test_the_runs_of_a_shard_are_its_tensors_in_order(
    plan: GrowthPlan, layer_map: list[int], limit: int
) -> None:
    for shard in lay_out(grow(plan, layer_map), limit).shards:
        end = len(shard.header)
        pieces = []
        for run in runs(shard):
            assert isinstance(run, CopyRun)
            assert run.offset == end
            end += run.nbytes
            pieces.append(run)
        assert end == shard.nbytes
        for placed in shard.tensors:
            source = stored_in(placed.tensor)
            run = next(r for r in pieces if r.offset <= placed.offset < r.offset + r.nbytes)
            assert run.file == source.file
            assert placed.offset - run.offset == source.offset - run.source_offset


@given(layer_map=LAYER_MAPS, limit=st.integers(10_000, 200_000))
def test_each_shard_starts_where_its_source_does_modulo_a_block(
    plan: GrowthPlan, layer_map: list[int], limit: int
) -> None:
    for shard in lay_out(grow(plan, layer_map), limit).shards:
        first = shard.tensors[0]
        assert first.offset == len(shard.header)
        assert (first.offset - stored_in(first.tensor).offset) % BLOCK_NBYTES == 0


def test_each_repeat_of_the_layers_is_one_run(make_checkpoint: MakeCheckpoint) -> None:
    (shard,) = lay_out(stack(read(LocalFolder(make_checkpoint())), g=4)).shards
    assert len(list(runs(shard))) == 4


def test_a_single_file_needs_no_index(plan: GrowthPlan) -> None:
    layout = lay_out(plan)
    assert layout.index is None
    assert layout.file_names == ("model.safetensors",)


def test_the_index_names_every_tensor_and_the_size_of_all(plan: GrowthPlan) -> None:
    grown = stack(plan, g=2)
    layout = lay_out(grown, 60_000)
    index = json.loads(layout.index or "")
    assert index["metadata"]["total_size"] == grown.nbytes
    assert index["weight_map"] == {
        placed.name: shard.name for shard in layout.shards for placed in shard.tensors
    }
    assert layout.file_names[-1] == "model.safetensors.index.json"


def shard_names(layout: Layout) -> list[str]:
    return [shard.name for shard in layout.shards]


def test_shards_are_numbered_as_transformers_numbers_them(plan: GrowthPlan) -> None:
    names = shard_names(lay_out(plan, 60_000))
    count = len(names)
    assert names == [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


@pytest.mark.case("D11")
def test_a_header_stays_below_what_the_hub_client_reads() -> None:
    """D11: 25 MB, however many tensors there are; long names and large offsets count."""
    grown = plan_of(1)
    name, tensor = next(iter(grown.tensors.items()))
    long = name.replace("0.input_layernorm", "99{:03}.post_attention_layernorm")
    wide = replace(tensor, recipe=replace(stored_in(tensor), shape=(151_936, 1 << 22)))
    grown = replace(grown, tensors={long.format(i): wide for i in range(1000)})
    (shard,) = lay_out(grown, 1 << 60).shards
    assert len(shard.header) / 1000 * _MAX_TENSORS_PER_SHARD < 30_000_000


@pytest.mark.case("D11")
def test_many_tensors_are_spread_over_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """D11, with a smaller number so that it takes no minute."""
    monkeypatch.setattr("hfgrow.checkpoint.layout._MAX_TENSORS_PER_SHARD", 100)
    layout = lay_out(stack(plan_of(10), layers=250), 1 << 50)
    *full, last = [len(shard.tensors) for shard in layout.shards]
    assert full == [100] * len(full)
    assert 0 < last <= 100
    assert 100 * len(full) + last == 250 * len(plan_of(1).tensors)


def test_the_output_is_as_large_as_the_plan_says(plan: GrowthPlan, tmp_path: Path) -> None:
    layout = lay_out(stack(plan, g=2), 60_000)
    headers = sum(len(shard.header) for shard in layout.shards)
    assert layout.nbytes == stack(plan, g=2).nbytes + headers
