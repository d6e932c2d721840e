"""Text files read strictly: JSON of strangers, YAML of people, each bounded and unrepeated."""

import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from math import isfinite
from pathlib import Path
from typing import Any

from hfgrow.checkpoint.files import Files
from hfgrow.errors import ModelError, UsageError, printable, said

# Far above any real config or index (a 100,000-tensor index takes 10 MB).
MAX_JSON_NBYTES = 50 * 1000 * 1000


def read_json_object(files: Files, name: str) -> dict[str, Any]:
    """Read a JSON file whose top level is an object.

    Raises:
        ModelError: The file is too large, not UTF-8, not JSON, not an object, or repeats a key.
    """
    nbytes = files.nbytes(name)
    if nbytes > MAX_JSON_NBYTES:
        raise ModelError(
            f"{printable(name)} has {nbytes} bytes; at most {MAX_JSON_NBYTES} are read"
        )
    return parse_json_object(files.read(name, 0, nbytes), name)


def parse_json_object(raw: bytes, where: str) -> dict[str, Any]:
    """Parse JSON bytes whose top level is an object; `where` names them in messages.

    Raises:
        ModelError: As in `read_json_object`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, times in counts.items() if times > 1)
            raise ModelError(f"{printable(where)}: the key {printable(twice)!r} stands twice")
        return result

    def refuse_constant(text: str) -> Any:
        raise ModelError(f"{printable(where)}: {text} is no JSON value")

    def finite(text: str) -> float:
        number = float(text)
        return number if isfinite(number) else refuse_constant(text)

    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=refuse_constant,
            parse_float=finite,
        )
        # Half of a surrogate pair is JSON, but no text that could be written again.
        if rb"\ud" in raw.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"{printable(where)} holds half of a surrogate pair") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{printable(where)} is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise ModelError(f"{printable(where)} is nested too deeply to be a header") from error
    except ValueError as error:
        raise ModelError(f"{printable(where)} is not JSON: {said(error, 120)}") from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{printable(where)} must hold a JSON object, not a {type(value).__name__}"
        )
    return value


def read_bounded(file: Path | Traversable, limit: int, what: str, *, verb: str = "has") -> bytes:
    """Return the content of a file that a user names.

    Args:
        limit: The most bytes it may have; no more than one beyond are read.
        verb: What goes with that: `the steps` have.

    Raises:
        UsageError: It cannot be read, or has more.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read {what}: {error.strerror}") from error
    if len(raw) > limit:
        raise UsageError(f"{what} {verb} more than {limit} bytes")
    return raw


def is_int(value: object) -> bool:
    """Say whether a JSON value is an integer, which `true` and `2.0` are not."""
    return isinstance(value, int) and not isinstance(value, bool)


# Recipes and steps have a few levels, those of mergekit up to twelve.
_MAX_DEPTH = 12
_INTEGER = "tag:yaml.org,2002:int"
_MAX_DIGITS = 40


def parse_yaml(raw: bytes) -> Any:
    """Parse YAML without anchors, tags, merge keys and repeated keys.

    Args:
        raw: The file's bytes.

    Raises:
        UsageError: It is something else; the message does not name the file.
    """
    import yaml

    try:
        text = raw.decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line + 1 if event.start_mark else 0
            if depth > _MAX_DEPTH:
                raise UsageError(f"line {line} is nested too deeply")
            if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
                raise UsageError(f"line {line} has an anchor or alias; write the value out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise UsageError(f"line {line} has a tag, {printable(tag)}; leave it out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        for scalar in _scalars(node):
            if scalar.tag == _INTEGER and len(scalar.value) > _MAX_DIGITS:
                raise UsageError(f"a number has {len(scalar.value)} characters")
        for mapping in _mappings(node):
            keys = [str(key.value) for key, _ in mapping.value]
            for key, times in Counter(keys).items():
                if times > 1:
                    raise UsageError(f"{printable(key)} stands {times} times in one mapping")
            if "<<" in keys:
                raise UsageError("merge keys (<<) are not read; write the values out")
        return yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 (byte {error.start})") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UsageError(f"not YAML: {_fault(error, raw)}", hint=_quote_hint(raw)) from error


def _mappings(node: Any) -> Iterator[Any]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        yield node
        for pair in node.value:
            for part in pair:
                yield from _mappings(part)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _mappings(item)


def _scalars(node: Any) -> Iterator[Any]:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item)
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for part in pair:
                yield from _scalars(part)


def _fault(error: Exception, raw: bytes) -> str:
    """Return what the parser found, behind the line and the column where it did."""
    import yaml

    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
        told = ", ".join(filter(None, (error.context, error.problem)))
        return f"line {line}, column {column}: {printable(told, 200)}"
    if isinstance(error, yaml.reader.ReaderError):
        before = raw.decode("utf-8", "replace")[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return f"line {line}, column {column}: {printable(error.reason)}"
    return said(error)


def _quote_hint(raw: bytes) -> str:
    return 'quote text that has brackets: pattern: "[1:8]-[9:16]*3"' if b"[" in raw else ""
