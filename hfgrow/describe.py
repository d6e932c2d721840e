"""Growths in words: steps and commands as one types them, layer maps as short rows."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from hfgrow.checkpoint.layout import DEFAULT_MAX_SHARD_NBYTES
from hfgrow.errors import printable
from hfgrow.lineage import Link


def describe_step(operator: str, arguments: Mapping[str, object]) -> str:
    """Return an operator with its arguments as one types them."""
    return " ".join(_words(operator, arguments))


def command_line(link: Link) -> str:
    """Return the command that makes a link's growth again, safe to paste into a shell.

    Several steps in one pass have no command of their own; they come out as a comment.
    """
    if len(link.steps) != 1:
        steps = ", then ".join(describe_step(step.operator, step.arguments) for step in link.steps)
        base = link.base.repo_id or link.base.name
        return f"# hfgrow.grow: {plain(f'{steps}, in one pass over {base}')}"
    step = link.steps[0]
    operator, *options = _words(step.operator, step.arguments)
    words = ["hfgrow", operator, link.base.repo_id or plain(link.base.name), *options]
    if link.base.revision:
        words += ["--revision", link.base.revision]
    if link.dtype:
        words += ["--dtype", link.dtype]
    if link.max_shard_nbytes != DEFAULT_MAX_SHARD_NBYTES:
        words += ["--max-shard-size", str(link.max_shard_nbytes)]
    return shlex.join(words)


def layer_rows(sources: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a layer map: runs that climb through the base, or that stay on a layer."""
    start = 0
    while start < len(sources):
        end = start + 1
        stride = sources[end] - sources[start] if end < len(sources) else 0
        while end < len(sources) and stride in (0, 1) and sources[end] - sources[end - 1] == stride:
            end += 1
        source = _range(sources[start], sources[end - 1])
        times = f", {end - start} times" if stride == 0 and end - start > 1 else ""
        yield _range(start, end - 1), source + times
        start = end


def plain(text: object) -> str:
    """Return a text that no Markdown, HTML or shell reads as anything but text."""
    return re.sub(r"[^\w ./@:+=,-]", "_", printable(text, 200))


def _words(operator: str, arguments: Mapping[str, object]) -> list[str]:
    words = [operator]
    for key, value in arguments.items():
        words += [str(value)] if key == "pattern" else [f"--{key.replace('_', '-')}", str(value)]
    return words


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
