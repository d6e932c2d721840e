"""The JSON schema of a recipe, for editors: what pydantic knows, with the words of the docstrings.

An editor reads YAML by itself and knows nothing of what depends on several keys, such as whole
batches: `hfgrow train RECIPE --dry-run` says that.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from hfgrow.plan.operators import ALL_OPERATORS
from hfgrow.train.recipe.fields import A_NUMBER, Part
from hfgrow.train.recipe.recipe import Recipe
from hfgrow.train.recipe.stages import NOT_ASKED

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# An entry of `Attributes:`, with the lines that go on further to the right.
_ENTRY = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
# The names of bounds in pydantic, where a validator stands before them.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
# Exactly one of these keys stands in a part.
_ONE_OF = {"Stage": ("train", "grow"), "Source": ("path", "dataset")}
_ONE_OF["TrainSource"] = _ONE_OF["Source"]


def recipe_schema() -> Schema:
    """Return the JSON schema (2020-12) of a recipe."""
    schema: Schema = _plain(Recipe.model_json_schema())
    parts: Schema = schema.pop("$defs")
    for model in _kinds_of(Part):
        found = schema if model is Recipe else parts.get(model.__name__)
        if found is not None:
            _complete(model, found)
    for name, keys in _ONE_OF.items():
        parts[name]["oneOf"] = [{"required": [key]} for key in keys]
        for key in keys:
            # It is there, or it is not: null would only blur what an editor says of its inside.
            told = parts[name]["properties"][key]
            told |= told.pop("anyOf")[0]
    for optimizer in ("ScheduleFreeAdamW", "Muon"):
        # Without a name it is adamw.
        parts[optimizer]["required"] = ["name"]
    parts["Grow"] |= _growth(parts["Grow"]["properties"])
    return {"$schema": _DIALECT, "title": "A recipe of hfgrow train", **schema, "$defs": parts}


def _complete(model: type[Part], schema: Schema) -> None:
    """Say what a part and its keys mean, and let null stand for what may be left out."""
    schema["description"] = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]
    told = dict(_attributes(model))
    for key, value in schema["properties"].items():
        if key not in schema.get("required", ()):
            value = _or_null(value)
        schema["properties"][key] = {"description": told[key], **value}


def _attributes(model: type) -> Iterator[tuple[str, str]]:
    """Yield what the docstrings of a class and of those it comes from say of its attributes."""
    for one in reversed(model.__mro__):
        attributes = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in _ENTRY.findall(attributes):
            yield name, " ".join(text.split())


def _growth(own: Schema) -> Schema:
    """Return what a growth takes: the arguments of its operator beside the keys of its own."""
    names = list(ALL_OPERATORS)
    operator = {**own["operator"], "enum": names}
    rules = []
    for name, row in ALL_OPERATORS.items():
        asked = [one for one in row.parameters if not one.marks & NOT_ASKED]
        arguments = {
            one.name: {"description": one.help, **_or_null(_of_type(one.type))} for one in asked
        }
        then: Schema = {
            "description": row.summary,
            "properties": {**arguments, **dict.fromkeys(own, True)},
            "additionalProperties": False,
        }
        if required := [one.name for one in asked if one.is_required]:
            then["required"] = required
        rules.append({"if": {"properties": {"operator": {"const": name}}}, "then": then})
    return {"properties": {**own, "operator": operator}, "allOf": rules}


def _of_type(kind: Any) -> Schema:
    if kind in (float, float | None):
        return dict(A_NUMBER)
    found: Schema = _plain(TypeAdapter(kind).json_schema())
    return found


def _or_null(schema: Schema) -> Schema:
    if {"type": "null"} in schema.get("anyOf", ()):
        return schema
    kept = {"default": schema.pop("default")} if "default" in schema else {}
    choices = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
    return {**kept, "anyOf": [*choices, {"type": "null"}]}


def _plain(value: Any) -> Any:
    """Return a schema without titles, which repeat the keys, and with the usual names of bounds."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        _BOUNDS.get(key, key): {name: _plain(item) for name, item in inner.items()}
        if key in ("properties", "$defs")
        else _plain(inner)
        for key, inner in value.items()
        if key not in ("title", "discriminator") and (key, inner) != ("default", None)
    }


def _kinds_of(model: type[Part]) -> Iterator[type[Part]]:
    for kind in model.__subclasses__():
        yield kind
        yield from _kinds_of(kind)
