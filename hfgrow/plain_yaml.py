"""YAML as people write it by hand: mappings, lists, texts and numbers, and nothing else."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hfgrow.errors import UsageError, printable

# Recipes and steps have a few levels; more than a typing error needs is neither.
_MAX_DEPTH = 8
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
        reason = " ".join(str(error).split())
        raise UsageError(f"not YAML: {printable(reason, 200)}", hint=_quote_hint(raw)) from error


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


def _quote_hint(raw: bytes) -> str:
    return 'quote text that has brackets: pattern: "[1:8]-[9:16]*3"' if b"[" in raw else ""
