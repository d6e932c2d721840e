"""Model cards: their YAML head, the checks of validate-yaml, and the tags that follow from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")
_REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_RELATIONS = ("adapter", "merge", "quantized", "finetune")
_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m
bigscience-bloom-rail-1.0 afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause
bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc intel-research
lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql
ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1
llama3.2 llama3.3 llama4 gemma unknown other
"""


def metadata(card: str) -> dict[str, Any]:
    """Return the metadata at the head of a card, empty without a head.

    Raises:
        ValueError: if the head is not YAML or not a mapping.
    """
    head = _HEAD.match(card)
    if head is None:
        return {}
    try:
        data = yaml.safe_load(head[1])
    except yaml.YAMLError as error:
        raise ValueError(f"YAML metadata error: {error}") from error
    if not isinstance(data, dict):
        raise ValueError("YAML metadata must be an object")
    return data


def problems(data: dict[str, Any]) -> list[str]:
    """Return what is wrong with the metadata of a model card."""
    found: list[str] = []

    def check(name: str, good: bool, expected: str) -> None:
        if data.get(name) is not None and not good:
            found.append(f'"{name}" must be {expected}')

    languages, licenses = _listed(data, "language"), _listed(data, "license")
    known = all(isinstance(x, str) and x in _LICENSES.split() for x in licenses)
    check("license", known, f"one of [{', '.join(_LICENSES.split())}]")
    spelled = all(isinstance(x, str) and _LANGUAGE.fullmatch(x) for x in languages)
    check("language", spelled, "a lower-case ISO 639 code, or an array of them")
    check("tags", _strings(data.get("tags")), "an array of strings")
    ids = all(isinstance(x, str) and _REPO_ID.fullmatch(x) for x in _listed(data, "base_model"))
    check("base_model", ids, "a model id, or an array of them")
    relation = data.get("base_model_relation") in _RELATIONS
    check("base_model_relation", relation, f"one of [{', '.join(_RELATIONS)}]")
    check("datasets", _strings(_listed(data, "datasets")), "a string or an array of strings")
    for name in ("pipeline_tag", "library_name", "license_name", "license_link", "thumbnail"):
        check(name, isinstance(data.get(name), str), "a string")
    index = data.get("model-index")
    named = isinstance(index, list) and all(isinstance(x, dict) and "name" in x for x in index)
    check("model-index", named, "an array of objects with a name and results")
    return found


def tags(data: dict[str, Any]) -> list[str]:
    """Return the tags that the Hub derives from the metadata of a card."""
    found = [str(tag) for tag in data.get("tags") or []]
    found += [str(language) for language in _listed(data, "language")]
    found += [f"license:{name}" for name in _listed(data, "license")]
    found += [f"dataset:{name}" for name in _listed(data, "datasets")]
    for base in _listed(data, "base_model"):
        found.append(f"base_model:{base}")
        if "base_model_relation" in data:
            found.append(f"base_model:{data['base_model_relation']}:{base}")
    names = (data.get("library_name"), data.get("pipeline_tag"))
    return list(dict.fromkeys([str(name) for name in names if name] + found))


async def validate(request: Request) -> Response:
    """Check the metadata of a card: 400 with the errors, or warnings only."""
    content = str((await request.json())["content"])
    try:
        data = metadata(content)
    except ValueError as error:
        return _verdict(400, errors=[str(error)])
    if not data:
        return _verdict(200, warnings=["empty or missing yaml metadata in repo card"])
    errors = problems(data)
    return _verdict(400 if errors else 200, errors=errors)


def _verdict(status: int, *, errors: Sequence[str] = (), warnings: Sequence[str] = ()) -> Response:
    body = {
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings],
    }
    headers = {"X-Error-Message": "Invalid metadata"} if errors else {}
    return JSONResponse(body, status_code=status, headers=headers)


def _listed(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


ROUTES = [Route("/api/validate-yaml", validate, methods=["POST"])]
