"""What --set puts into a recipe, and what cannot be put."""

from pathlib import Path

import pytest
import yaml

from hfgrow.train.recipe.files import with_overrides
from hfgrow.train.recipe.parts import AdamW
from hfgrow.train.recipe.recipe import load_recipe
from tests.train.recipes import MINIMAL, message_of


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "is no path=value"),
        ("=1", "is no path=value"),
        ("a..b=1", "is no path=value"),
        ("seed=[1", "not YAML"),
        ("seed=*a", "anchor"),
        ("base.x=1", "base is demo, which has no x"),
        ("batch_tokens.0=1", "batch_tokens is 8192, which has no 0"),
        ("stages.7.train.tokens=1M", "stages is a list of 1; 7 is no index"),
        ("stages.-1.train.tokens=1M", "-1 is no index"),
        ("stages.first.train.tokens=1M", "first is no index"),
    ],
)
def test_an_override_that_cannot_be_put_is_refused(
    minimal: Path, override: str, words: str
) -> None:
    message = message_of(minimal, override)
    assert words.replace("is demo", "is 'demo'") in message
    assert "--set" in message


def test_overrides_replace_append_and_make_what_they_lead_through(minimal: Path) -> None:
    recipe = load_recipe(
        minimal,
        [
            "stages.0.train.tokens=4M",
            "data.train.1.path=notes.txt",
            "data.validation.0.path=held-out.txt",
            "checkpoint.keep=5",
            "optimizer.weight_decay=0",
            "tokenizer=",
        ],
    )
    assert recipe.stages[0].train is not None
    assert recipe.stages[0].train.tokens == 4_000_000
    assert [source.dataset or source.path for source in recipe.data.train] == ["demo", "notes.txt"]
    assert [source.path for source in recipe.data.validation] == ["held-out.txt"]
    assert recipe.checkpoint.keep == 5
    assert recipe.optimizer == AdamW(weight_decay=0.0)
    assert recipe.tokenizer is None


def test_overrides_leave_what_was_read_as_it_is() -> None:
    content = yaml.safe_load(MINIMAL)
    with_overrides(content, ["stages.0.train.tokens=4M", "seed=3"])
    assert content == yaml.safe_load(MINIMAL)
