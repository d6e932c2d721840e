"""What a sequence begins with: the beginning-of-text token where the family was trained so."""

from dataclasses import replace
from pathlib import Path

import pytest

from hfgrow.data.batches import BatchPlan, evaluation_batches, micro_batches
from hfgrow.data.order import BlockOrder
from hfgrow.data.views import TokenView
from hfgrow.errors import ModelError
from hfgrow.train.recipe.recipe import recipe_of
from hfgrow.train.text import begun, lacks
from tests.data.corpora import prepared, tokenizer, write_stories
from tests.train.runs import recipe

LENGTH, BOS = 16, 7
ENCODER = replace(tokenizer(), bos=BOS)
PLAN = BatchPlan(world_size=1, micro_batch_size=4, accumulation=1)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TokenView:
    folder = tmp_path_factory.mktemp("text")
    return TokenView.of(prepared(write_stories(folder / "a.txt", 8), folder / "out", ENCODER))


def order_of(view: TokenView) -> BlockOrder:
    return BlockOrder([view], [1.0], sequence_length=LENGTH, seed=3)


@pytest.mark.parametrize(
    ("model_type", "wanted", "bos"),
    [
        ("gemma3_text", None, BOS),
        ("gemma", None, BOS),
        ("gemma3_text", "document", None),
        ("llama", None, None),
        ("llama", "sequence", BOS),
        ("a type without a table", None, None),
    ],
)
def test_the_family_decides_unless_the_recipe_does(
    view: TokenView, model_type: str, wanted: str | None, bos: int | None
) -> None:
    assert begun([view], model_type, ENCODER, wanted)[0].bos == bos


def test_a_token_that_the_tokenizer_lacks_cannot_begin_a_sequence(view: TokenView) -> None:
    without = replace(ENCODER, bos=None)
    assert begun([view], "gemma", without)[0].bos is None
    with pytest.raises(ModelError, match=r"data\.bos is sequence, but the tokenizer names no"):
        begun([view], "llama", without, "sequence")


def test_a_family_that_begins_so_is_told_where_the_tokenizer_lacks_the_token() -> None:
    without = replace(ENCODER, bos=None)
    (note,) = lacks("gemma", without, None)
    assert "a gemma is trained on sequences that begin with bos_token" in note
    assert not lacks("gemma", ENCODER, None)
    assert not lacks("gemma", without, "document")
    assert not lacks("llama", without, None)


def test_a_sequence_begins_with_the_token_and_predicts_what_it_did(view: TokenView) -> None:
    plain, begins = (
        next(micro_batches(order_of(one), PLAN, num_workers=0))[0]
        for one in (view, replace(view, bos=BOS))
    )
    assert begins.input_ids[:, 0].tolist() == [BOS] * 4
    assert begins.input_ids[:, 1:].equal(plain.input_ids[:, 1:])
    assert begins.targets.equal(plain.targets)


def test_held_out_sequences_begin_with_the_token_too(view: TokenView) -> None:
    batches = evaluation_batches(replace(view, bos=BOS), sequence_length=LENGTH, micro_batch_size=2)
    assert {row for batch in batches for row in batch.input_ids[:, 0].tolist()} == {BOS}


def test_a_run_goes_on_only_as_it_began(view: TokenView) -> None:
    plain, begins = order_of(view), order_of(replace(view, bos=BOS))
    assert plain.fingerprint != begins.fingerprint
    assert view.between(0, 50).bos is None
    assert replace(view, bos=BOS).between(0, 50).bos == BOS


def test_the_option_left_out_is_what_a_run_of_before_recorded(tmp_path: Path) -> None:
    content = recipe(tmp_path)
    assert "data.bos" not in recipe_of(content).identity()
    content["data"]["bos"] = "sequence"
    assert recipe_of(content).data.bos == "sequence"
