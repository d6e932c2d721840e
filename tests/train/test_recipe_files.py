"""Recipes as files: read strictly, found by name, and every shipped one explained.

What overrides put into a recipe, and what cannot be put.
"""

import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from hfgrow.errors import UsageError
from hfgrow.train.recipe.files import shipped_recipes, with_overrides
from hfgrow.train.recipe.parts import AdamW, FreshModel
from hfgrow.train.recipe.recipe import Recipe, load_recipe
from tests.train.recipes import MINIMAL, message_of

SHIPPED = shipped_recipes()


@pytest.mark.case("D13")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds nothing"),
        ("- train", "holds a list"),
        ("base: demo\nbase: demo", "base stands 2 times"),
        ("base: &a demo\noutput: *a", "anchor"),
        ("base: !!python/object/apply:os.system [id]", "has a tag"),
        ("# " + "x" * (1 << 16), "more than 65536 bytes"),
    ],
)
def test_a_file_that_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert words in message_of(path)


def test_a_recipe_that_is_nowhere_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe dem") as caught:
        load_recipe("dem")
    assert caught.value.hint == "did you mean demo?"
    assert "cannot read" in message_of(tmp_path)


def test_a_file_wins_over_a_shipped_recipe_of_that_name(
    minimal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(minimal.parent)
    assert load_recipe("demo").output == "demo-trained"
    minimal.rename("demo.yaml")
    assert load_recipe("demo.yaml").output == "out"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_parses_and_is_written_back_the_same(
    tmp_path: Path, name: str
) -> None:
    recipe = load_recipe(name)
    written = tmp_path / "written.yaml"
    written.write_text(recipe.to_yaml())
    again = load_recipe(written)
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert again.fingerprint == recipe.fingerprint


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_says_what_it_is_and_comments_each_key(name: str) -> None:
    text = SHIPPED[name].read_text(encoding="utf-8")
    for word in ("Paper:", "Hardware:", "Expected:", "Run:"):
        assert f"# {word}" in text.split("\n\nbase:")[0]
    assert f"hfgrow train {name}" in text or name == "reference"
    assert max(map(len, text.splitlines())) <= 100
    keys = dict(commented_keys(text))
    assert not [path for path, is_commented in keys.items() if not is_commented]


def test_the_reference_has_every_key_of_the_schema() -> None:
    shown, free = (
        dict(commented_keys(SHIPPED[name].read_text(encoding="utf-8")))
        for name in ("reference", "schedule-free")
    )
    # A recipe has one optimizer, so what only the other has stands in its own recipe.
    missing = set(schema_keys(Recipe)) - set(shown)
    assert missing == {"optimizer.r", "optimizer.weight_lr_power"}
    assert missing <= set(free)


def commented_keys(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the key paths of a file without indices, and whether a comment is at one of them.

    A comment stands on the key's line or above it; a key that only holds others needs none.
    """
    lines = text.splitlines()
    found: dict[str, bool] = {}

    def walk(node: yaml.Node, path: str) -> None:
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item, path)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner, i = f"{path}{key.value}", key.start_mark.line
                above = i > 0 and lines[i - 1].lstrip().startswith("#")
                is_commented = bool(re.search(r" # \w", lines[i])) or above
                holds = not isinstance(value, yaml.ScalarNode) and not value.flow_style
                found[inner] = found.get(inner, False) or is_commented or holds
                walk(value, f"{inner}.")

    node = yaml.compose(text)
    assert node is not None
    walk(node, "")
    yield from found.items()


def schema_keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the key paths of a model, of all alternatives, without indices."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        for inner in models_in(field.annotation):
            if inner is not FreshModel:
                yield from schema_keys(inner, f"{path}{name}.")


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


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
    assert message.startswith(f"overrides={override}")


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
