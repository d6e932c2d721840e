"""The order of samples: a pure function of seed and number, whoever asks, whenever."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgrow.data.batches import NO_TARGET, BatchPlan, ahead, collate, micro_batches
from hfgrow.data.order import (
    MAX_PERIOD,
    Block,
    BlockOrder,
    Mixture,
    Permutation,
    check_sequence_length,
)
from hfgrow.data.views import TokenView
from hfgrow.errors import TrainingError, UsageError
from tests.data.corpora import prepared, tokenizer, write_stories

LENGTH = 16
WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[TokenView]:
    """Three texts of different length."""
    folder, encoder = tmp_path_factory.mktemp("text"), tokenizer()
    found = []
    for i, num_documents in enumerate((12, 5, 2)):
        path = write_stories(folder / f"{i}.txt", num_documents, first=100 * i)
        found.append(TokenView.of(prepared(path, folder / f"out{i}", encoder)))
    return found


@pytest.fixture(scope="module")
def order(views: list[TokenView]) -> BlockOrder:
    return BlockOrder(views, [0.5, 0.3, 0.2], sequence_length=LENGTH, seed=7)


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**64))
def test_a_permutation_has_every_number_once(size: int, seed: int) -> None:
    permutation = Permutation(size, seed, "x")
    assert sorted(permutation[i] for i in range(size)) == list(range(size))


@given(size=st.integers(2**33, 2**60), place=st.integers(0, 2**33 - 1))
def test_a_permutation_of_any_size_costs_nothing(size: int, place: int) -> None:
    assert 0 <= Permutation(size, 1)[place] < size


def test_a_permutation_is_the_same_for_ever_and_no_other() -> None:
    assert [Permutation(10, 1)[i] for i in range(10)] == [4, 5, 7, 6, 1, 3, 0, 8, 9, 2]
    assert len({tuple(Permutation(50, s)[i] for i in range(50)) for s in range(40)}) == 40


def test_a_permutation_leaves_nothing_near_its_place() -> None:
    size = 4000
    moved = np.array([Permutation(size, 3)[i] for i in range(size)])
    steps = np.abs(np.diff(moved))
    # Two random places are a third of the size apart.
    assert abs(steps.mean() / size - 1 / 3) < 0.02
    assert abs(np.corrcoef(np.arange(size), moved)[0, 1]) < 0.05


@given(weights=WEIGHTS, scale=st.sampled_from([1, 0.1, 1e-3, 7.0]))
@settings(max_examples=30)
def test_every_source_is_always_within_one_sample_of_its_share(
    weights: list[int], scale: float
) -> None:
    mixture = Mixture([weight * scale for weight in weights])
    shares = np.array(mixture.slots) / mixture.period
    counts = np.zeros(len(weights))
    for n in range(min(3 * mixture.period, 500)):
        assert (np.abs(counts - n * shares) < 1).all()
        assert mixture.counts(n) == tuple(counts)
        source, before = mixture.place(n)
        assert before == counts[source]
        counts[source] += 1


def test_decimal_weights_are_exact_and_others_nearly() -> None:
    assert Mixture([0.7, 0.2, 0.1]).slots == (7, 2, 1)
    assert Mixture([3]).slots == (1,)
    wanted = np.array([0.123456789, 0.5, 1e-9])
    odd = Mixture(wanted.tolist())
    assert odd.period == MAX_PERIOD
    assert min(odd.slots) == 1
    assert np.abs(np.array(odd.slots) / odd.period - wanted / wanted.sum()).max() < 3 / MAX_PERIOD


@pytest.mark.parametrize("weights", [[], [0.0], [1, -1], [float("nan")], [float("inf"), 1]])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError):
        Mixture(weights)


def test_an_epoch_has_every_block_of_a_source_once_in_an_order_of_its_own(
    views: list[TokenView],
) -> None:
    order = BlockOrder(views[:1], [1], sequence_length=LENGTH, seed=7)
    (num_blocks,) = order.num_blocks
    epochs = [[order.place(e * num_blocks + i) for i in range(num_blocks)] for e in range(3)]
    for number, places in enumerate(epochs):
        assert {place.epoch for place in places} == {number}
        assert sorted(place.block for place in places) == list(range(num_blocks))
    assert epochs[0] != epochs[1] != epochs[2]
    assert order.epochs(3 * num_blocks) == (3.0,)


def test_every_token_but_the_first_is_predicted_once_an_epoch(views: list[TokenView]) -> None:
    order = BlockOrder(views[:1], [1], sequence_length=LENGTH, seed=7)
    (num_blocks,) = order.num_blocks
    found = {order.place(n).block: order.block(n).tokens for n in range(num_blocks)}
    assert {len(tokens) for tokens in found.values()} == {LENGTH + 1}
    targets = np.concatenate([found[i][1:] for i in range(num_blocks)])
    assert targets.tolist() == views[0].read(1, num_blocks * LENGTH + 1)[0].tolist()


def test_a_block_knows_where_its_documents_begin(order: BlockOrder) -> None:
    for n in range(60):
        block = order.block(n)
        after_ends = [0, *(np.flatnonzero(block.tokens[:-1] == 0) + 1).tolist()]
        starts = block.starts.tolist()
        assert [start for start in starts if start] == after_ends[1:]


def test_another_seed_is_another_order_and_another_fingerprint(views: list[TokenView]) -> None:
    def places(seed: int, weights: list[float]) -> tuple[list[int], str]:
        order = BlockOrder(views, weights, sequence_length=LENGTH, seed=seed)
        return [order.place(n).block for n in range(30)], order.fingerprint

    first, second = places(1, [1, 1, 1]), places(2, [1, 1, 1])
    assert first[0] != second[0]
    prints = {first[1], second[1], places(1, [1, 1, 2])[1], places(1, [1, 1, 1])[1]}
    assert len(prints) == 3
    part = BlockOrder([views[0].part(0, 50)], [1], sequence_length=LENGTH, seed=1)
    whole = BlockOrder([views[0]], [1], sequence_length=LENGTH, seed=1)
    assert part.fingerprint != whole.fingerprint


@given(
    first=st.integers(0, 10**9),
    micro=st.integers(1, 5),
    accumulation=st.sampled_from([4, 8]),
)
def test_any_number_of_ranks_takes_the_same_samples(
    first: int, micro: int, accumulation: int
) -> None:
    wanted = list(range(first, first + 4 * micro * accumulation))
    for world_size in (1, 2, 4):
        plan = BatchPlan(
            world_size=world_size,
            micro_batch_size=micro,
            accumulation=4 * accumulation // world_size,
        )
        taken: Counter[int] = Counter()
        for rank in range(world_size):
            micro_batches = plan.samples(first, rank)
            assert {len(samples) for samples in micro_batches} == {micro}
            taken.update(n for samples in micro_batches for n in samples)
        assert sorted(taken.elements()) == wanted
        assert plan.num_samples == len(wanted)


def global_batch(
    order: BlockOrder, world_size: int, num_workers: int, first: int, num_steps: int
) -> dict[int, list[list[int]]]:
    """Return the inputs and targets of every sample that all ranks together get."""
    plan = BatchPlan(world_size=world_size, micro_batch_size=2, accumulation=8 // world_size)
    found: dict[int, list[list[int]]] = {}
    for rank in range(world_size):
        steps = micro_batches(order, plan, rank=rank, first_sample=first, num_workers=num_workers)
        for step in islice(steps, num_steps):
            for batch in step:
                for i, sample in enumerate(batch.samples):
                    assert sample not in found
                    found[sample] = [batch.input_ids[i].tolist(), batch.targets[i].tolist()]
    return found


def test_ranks_and_workers_do_not_change_what_is_trained_on(order: BlockOrder) -> None:
    wanted = global_batch(order, 1, 0, 0, 3)
    assert sorted(wanted) == list(range(48))
    for world_size in (1, 2, 4):
        for num_workers in (0, 1, 2):
            assert global_batch(order, world_size, num_workers, 0, 3) == wanted


@pytest.mark.parametrize("consumed", [16, 32, 48])
def test_a_run_goes_on_at_a_number_with_other_ranks(order: BlockOrder, consumed: int) -> None:
    whole = global_batch(order, 1, 2, 0, 5)
    rest = global_batch(order, 4, 2, consumed, 5 - consumed // 16)
    assert rest == {n: sample for n, sample in whole.items() if n >= consumed}


@given(sample=st.integers(0, 10**12))
def test_any_sample_can_be_the_first(sample: int) -> None:
    mixture = Mixture([0.5, 0.3, 0.2])
    source, count = mixture.place(sample)
    assert mixture.counts(sample + 1)[source] == count + 1


def test_a_step_of_tokens_that_cannot_be_parted_is_refused() -> None:
    plan = BatchPlan.of_tokens(4096, sequence_length=64, micro_batch_size=4, world_size=2)
    assert (plan.accumulation, plan.num_samples) == (8, 64)
    with pytest.raises(UsageError, match="no multiple of sequence_length 64") as caught:
        BatchPlan.of_tokens(1000, sequence_length=64, micro_batch_size=4, world_size=2)
    assert caught.value.hint == "batch_tokens=512 or batch_tokens=1024"


def test_documents_that_do_not_see_each_other_are_segments_of_their_own() -> None:
    block = Block(np.array([5, 6, 0, 7, 8, 0, 9]), np.array([3, 6]), 0)
    arrays = collate([block], document_mask=True)
    assert arrays.input_ids.tolist() == [[5, 6, 0, 7, 8, 0]]
    assert arrays.targets.tolist() == [[6, 0, NO_TARGET, 8, 0, NO_TARGET]]
    assert arrays.segment_ids.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert arrays.num_targets == 4
    packed = collate([block], document_mask=False)
    assert packed.targets.tolist() == [[6, 0, 7, 8, 0, 9]]


def test_an_error_of_a_thread_comes_out_where_its_turn_is() -> None:
    results = ahead(iter([1, 2, 0, 4]), lambda n: 12 // n, 2)
    assert [next(results), next(results)] == [12, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_text_shorter_than_a_sequence_is_refused(views: list[TokenView]) -> None:
    with pytest.raises(TrainingError, match="fewer than one sequence of 100000"):
        BlockOrder(views, [1, 1, 1], sequence_length=100_000, seed=0)


@pytest.mark.case("H15")
def test_sequences_beyond_the_positions_of_the_model_are_refused() -> None:
    check_sequence_length(512, 512)
    with pytest.raises(UsageError, match="above the model's max_position_embeddings 512"):
        check_sequence_length(513, 512)


def test_the_views_of_other_folders_mix(views: list[TokenView], tmp_path: Path) -> None:
    order = BlockOrder(views, [2, 1, 1], sequence_length=LENGTH, seed=0)
    sources = Counter(order.block(n).source for n in range(40))
    assert sources == {0: 20, 1: 10, 2: 10}
