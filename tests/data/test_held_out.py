"""Held-out text: parts of a split, documents held out, evaluation in order, overlap (H17)."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hfgrow.data.batches import NO_TARGET, evaluation_batches
from hfgrow.data.corpus import corpus_of, open_sources, token_folders, views_of
from hfgrow.data.held_out import Overlap, hold_out, overlaps
from hfgrow.data.sources import TextSource
from hfgrow.data.text_tokenizer import TextTokenizer
from hfgrow.data.views import TokenView
from hfgrow.errors import TrainingError
from tests.data.corpora import VOCAB_SIZE, prepared, story, write_rows, write_stories


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory, encoder: TextTokenizer) -> TokenView:
    """Two hundred documents, every tenth of them like another one."""
    folder = tmp_path_factory.mktemp("text")
    rows = [{"text": story(i - 1 if i % 10 == 9 else i, 40)} for i in range(200)]
    return TokenView.of(prepared(write_rows(folder / "a.jsonl", rows), folder / "out", encoder))


def documents_of(view: TokenView) -> list[list[int]]:
    tokens, starts = view.read(0, view.num_tokens)
    edges = [*starts.tolist(), len(tokens)]
    return [tokens[a:b].tolist() for a, b in pairwise(edges)]


def test_held_out_documents_are_whole_and_none_of_them_is_trained_on(view: TokenView) -> None:
    held = hold_out(view, 0.1, at_least=64, seed=1)
    train, validation = documents_of(held.train), documents_of(held.validation)
    assert held.by_documents
    assert sorted(train + validation) == sorted(documents_of(view))
    assert not {tuple(d) for d in train} & {tuple(d) for d in validation}
    assert 0.1 <= held.validation.num_tokens / view.num_tokens <= 0.2
    assert held.train.num_bytes + held.validation.num_bytes == view.num_bytes


def test_what_is_held_out_depends_on_seed_and_text_alone(view: TokenView) -> None:
    ranges = [hold_out(view, 0.1, at_least=64, seed=s).validation.ranges.tolist() for s in (1, 2)]
    assert ranges[0] == hold_out(view, 0.1, at_least=64, seed=1).validation.ranges.tolist()
    assert ranges[0] != ranges[1]


def test_of_one_long_document_the_end_is_held_out(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = tmp_path / "a.txt"
    path.write_text(story(1, 2000))
    whole = TokenView.of(prepared(path, tmp_path / "out", encoder))
    corpus = corpus_of([whole], [], sequence_length=32, seed=0, fraction=0.05)
    (train,), (validation,) = corpus.train, corpus.validation
    assert train.num_tokens + validation.num_tokens == whole.num_tokens
    assert validation.num_tokens == math.ceil(0.05 * whole.num_tokens)
    assert "its last" in corpus.notes[0]
    for at_least, hint in ((1, "or name validation text"), (10_000, "smaller sequence_length")):
        with pytest.raises(TrainingError, match="too few to hold out") as caught:
            hold_out(whole, 0.6, at_least=at_least, seed=0)
        assert caught.value.hint.startswith("give it more text")
        assert hint in caught.value.hint


def test_parts_of_a_split_have_no_token_in_common(tmp_path: Path, encoder: TextTokenizer) -> None:
    path = write_stories(tmp_path / "a.txt", 30)
    sources = [TextSource(path=path, split=split) for split in ("train[:90%]", "train[90%:]")]
    train, validation = open_sources(sources, encoder, tmp_path / "cache", vocab_size=VOCAB_SIZE)
    (whole,) = open_sources(
        [TextSource(path=path)], encoder, tmp_path / "cache", vocab_size=VOCAB_SIZE
    )
    tokens = [v.read(0, v.num_tokens)[0] for v in (train, validation, whole)]
    assert np.concatenate(tokens[:2]).tolist() == tokens[2].tolist()
    assert len(list((tmp_path / "cache").glob("a.txt-*"))) == 1
    assert not corpus_of([train], [validation], sequence_length=16, seed=0).notes


def test_a_prepared_folder_is_a_source(tmp_path: Path, encoder: TextTokenizer) -> None:
    files = prepared(write_stories(tmp_path / "a.txt", 5), tmp_path / "out", encoder)
    source = TextSource(path=tmp_path / "out")
    (view,) = open_sources([source], encoder, tmp_path / "cache", vocab_size=VOCAB_SIZE)
    assert view.num_tokens == files.num_tokens
    assert not (tmp_path / "cache").exists()
    with pytest.raises(TrainingError, match="vocab_size is 10"):
        open_sources([source], encoder, tmp_path / "cache", vocab_size=10)


def test_tokens_are_opened_without_a_look_at_their_text(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    """As the other processes of a run do, whatever happens to the text meanwhile."""
    source = TextSource(path=write_stories(tmp_path / "a.txt", 5), split="train[:50%]")
    folders = token_folders([source], encoder, tmp_path / "cache", vocab_size=VOCAB_SIZE)
    (tmp_path / "a.txt").unlink()
    (view,) = views_of([source], folders)
    assert view.num_tokens == view.files.num_tokens // 2


def test_changed_text_is_prepared_again_in_the_cache(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    source = TextSource(path=write_stories(tmp_path / "a.txt", 5))
    (before,) = open_sources([source], encoder, tmp_path / "cache", vocab_size=VOCAB_SIZE)
    write_stories(tmp_path / "a.txt", 6)
    (after,) = open_sources([source], encoder, tmp_path / "cache", vocab_size=VOCAB_SIZE)
    assert after.num_tokens > before.num_tokens
    assert before.fingerprint != after.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("part", [100, 37])
def test_every_held_out_token_is_predicted_once_by_any_number_of_ranks(
    view: TokenView, world_size: int, part: int
) -> None:
    text = view.part(0, part)
    targets: list[int] = []
    num_batches = set()
    for rank in range(world_size):
        batches = list(
            evaluation_batches(
                text, sequence_length=32, micro_batch_size=4, rank=rank, world_size=world_size
            )
        )
        num_batches.add(len(batches))
        for batch in batches:
            assert tuple(batch.input_ids.shape) == (4, 32)
            found = batch.targets[batch.targets != NO_TARGET].tolist()
            assert len(found) == batch.num_targets
            targets += found
    assert len(num_batches) == 1
    assert sorted(targets) == sorted(text.read(1, text.num_tokens)[0].tolist())


def test_an_evaluation_can_be_bounded(view: TokenView) -> None:
    batches = evaluation_batches(
        view, sequence_length=32, micro_batch_size=4, max_tokens=320, document_mask=True
    )
    assert sum(batch.num_targets for batch in batches) <= 320


@pytest.mark.case("H17")
def test_validation_text_that_is_trained_on_is_found(
    tmp_path: Path, encoder: TextTokenizer
) -> None:
    """H17: the same documents, in another file and another order."""
    train = write_stories(tmp_path / "train.txt", 40)
    mixed = write_rows(
        tmp_path / "mixed.jsonl", [{"text": story(i, 60)} for i in (90, 7, 91, 3, 92)]
    )
    apart = write_stories(tmp_path / "apart.txt", 10, first=500)
    views = [
        TokenView.of(prepared(p, tmp_path / f"out-{p.name}", encoder))
        for p in (train, mixed, apart)
    ]
    assert [(o.num_shared, o.num_documents) for o in overlaps([views[1]], [views[0]])] == [(2, 5)]
    assert not overlaps([views[2]], views[:1])
    corpus = corpus_of(views[:1], views[1:], sequence_length=16, seed=0)
    assert len(corpus.notes) == 1
    assert corpus.notes[0].startswith("2 of 5 validation documents and ")
    assert " of the passages of 32 tokens of mixed.jsonl stand in " in corpus.notes[0]


def test_text_that_has_no_whole_document_is_told_by_its_passages() -> None:
    found = Overlap(validation="a.txt", train="b.txt", num_documents=0, num_shared=0, share=0.77)
    assert found.warning == (
        "77% of the passages of 32 tokens of a.txt stand in the training text b.txt too: the "
        "validation loss is too low by that"
    )


@pytest.mark.case("H17")
def test_passages_are_found_inside_longer_text(tmp_path: Path, encoder: TextTokenizer) -> None:
    """H17: no document is the same, but its text is."""
    inner = [story(i, 400) for i in range(6)]
    (tmp_path / "train.txt").write_text("\n\n".join(["Before.", *inner, "After."]))
    (tmp_path / "held.txt").write_text("\n\n\n".join([*inner[2:4], story(70, 800)]))
    train, held = (
        TokenView.of(prepared(tmp_path / f"{n}.txt", tmp_path / n, encoder))
        for n in ("train", "held")
    )
    (found,) = overlaps([held], [train])
    assert found.num_shared == 0
    assert found.share is not None
    assert 0.35 < found.share < 0.65
