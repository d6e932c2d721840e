"""The schema that an editor checks recipes by takes what hfgrow takes, and says what keys mean."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfgrow.checkpoint.strict import parse_yaml
from hfgrow.plan.operators import ALL_OPERATORS
from hfgrow.train.recipe.files import shipped_recipes
from hfgrow.train.recipe.schema import recipe_schema
from tests.program import call_hfgrow

SCHEMA = recipe_schema()
RECIPES = {
    name: parse_yaml(file.read_text(encoding="utf-8").encode())
    for name, file in shipped_recipes().items()
}
_TYPES: dict[str, Any] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
    "array": (list, tuple),
    "object": dict,
}
_SAID_ONLY = {"$schema", "$defs", "title", "description", "default"}


def fits(value: Any, schema: Any) -> bool:
    """Say whether a value is one of a schema, by the keywords that ours has."""
    if schema is True:
        return True
    return all(
        _RULES[keyword](value, said, schema)
        for keyword, said in schema.items()
        if keyword not in _SAID_ONLY
    )


def _is(value: Any, names: Any) -> bool:
    listed = names if isinstance(names, list) else [names]
    return any(
        isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in listed
    )


def _inside(value: Any, properties: Any) -> bool:
    shared = properties.keys() & value.keys() if isinstance(value, dict) else ()
    return all(fits(value[key], properties[key]) for key in shared)


def _others(value: Any, said: Any, schema: Any) -> bool:
    others = set(value) - set(schema.get("properties", {})) if isinstance(value, dict) else ()
    return not others if said is False else all(fits(value[key], said) for key in others)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_RULES: dict[str, Callable[[Any, Any, Any], bool]] = {
    "type": lambda v, said, _: _is(v, said),
    "enum": lambda v, said, _: v in said,
    "const": lambda v, said, _: v == said,
    "pattern": lambda v, said, _: not isinstance(v, str) or bool(re.search(said, v)),
    "minimum": lambda v, said, _: not _number(v) or v >= said,
    "maximum": lambda v, said, _: not _number(v) or v <= said,
    "exclusiveMinimum": lambda v, said, _: not _number(v) or v > said,
    "exclusiveMaximum": lambda v, said, _: not _number(v) or v < said,
    "minItems": lambda v, said, _: not isinstance(v, list) or len(v) >= said,
    "maxItems": lambda v, said, _: not isinstance(v, list) or len(v) <= said,
    "items": lambda v, said, _: not isinstance(v, list) or all(fits(one, said) for one in v),
    "prefixItems": lambda v, said, _: not isinstance(v, list) or all(map(fits, v, said)),
    "properties": lambda v, said, _: _inside(v, said),
    "required": lambda v, said, _: not isinstance(v, dict) or set(said) <= set(v),
    "additionalProperties": _others,
    "$ref": lambda v, said, _: fits(v, SCHEMA["$defs"][said.rpartition("/")[2]]),
    "anyOf": lambda v, said, _: any(fits(v, one) for one in said),
    "oneOf": lambda v, said, _: sum(fits(v, one) for one in said) == 1,
    "allOf": lambda v, said, _: all(fits(v, one) for one in said),
    "if": lambda v, said, schema: not fits(v, said) or fits(v, schema["then"]),
    "then": lambda v, said, schema: True,
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_recipe_fits(name: str) -> None:
    assert fits(RECIPES[name], SCHEMA)


def grow(recipe: Any) -> Any:
    return next(stage["grow"] for stage in recipe["stages"] if "grow" in stage)


FAULTS: dict[str, Callable[[Any], Any]] = {
    "an unknown key": lambda r: r.update(batch_token=5),
    "no text": lambda r: r.pop("data"),
    "an amount that is none": lambda r: r.update(batch_tokens="lots"),
    "an operator that is none": lambda r: grow(r).update(operator="stak"),
    "an argument of another operator": lambda r: grow(r).update(overlap=2),
    "an empty stage": lambda r: r["stages"][0].clear(),
    "both kinds of stage at once": lambda r: r["stages"][0].update(grow=grow(r)),
    "a negative rate": lambda r: r["stages"][0]["train"].update(learning_rate=-1),
    "a source of two things": lambda r: r["data"]["train"][0].update(path="a", dataset="demo"),
    "an optimizer that is none": lambda r: r.update(optimizer={"name": "sgd"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_what_a_recipe_cannot_say_does_not_fit(fault: Callable[[Any], Any]) -> None:
    recipe = copy.deepcopy(RECIPES["demo-gstack"])
    fault(recipe)
    assert not fits(recipe, SCHEMA)


@pytest.mark.parametrize("tokens", [524_288, 1e6, "2_000_000", "2M", "1.5b", "1e6"])
def test_a_number_of_tokens_fits_as_either_yaml_reads_it(tokens: object) -> None:
    recipe = copy.deepcopy(RECIPES["demo-gstack"])
    recipe["batch_tokens"] = tokens
    assert fits(recipe, SCHEMA)


def test_null_stands_for_what_may_be_left_out() -> None:
    assert fits({**RECIPES["demo-gstack"], "seed": None, "push": None}, SCHEMA)


def test_every_key_says_what_it_means() -> None:
    parts = {name: part for name, part in SCHEMA["$defs"].items() if "properties" in part}
    for name, part in {"": SCHEMA, **parts}.items():
        for key, value in part["properties"].items():
            assert value["description"], f"{name}.{key}"


def test_the_arguments_of_every_operator_say_what_they_are() -> None:
    rules = SCHEMA["$defs"]["Grow"]["allOf"]
    assert [rule["if"]["properties"]["operator"]["const"] for rule in rules] == list(ALL_OPERATORS)
    g = rules[0]["then"]["properties"]["g"]
    stack = ALL_OPERATORS["stack"].parameter("g")
    assert stack is not None
    assert g["description"] == stack.help


def test_the_command_prints_it_without_a_recipe(tmp_path: Path) -> None:
    done = call_hfgrow("train", "--schema", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == SCHEMA
