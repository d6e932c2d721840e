"""What the page of `hfgrow app` asks and answers; how a browser shows it is in app.py.

A question is what a command line is: a model, an operator, and the options of its command. An
answer is HTML, in which all text is escaped, of what `--dry-run`, `inspect` and `lineage` say.
"""

import base64
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, get_args, get_origin

from typer.models import ArgumentInfo

from hfgrow.checkpoint.read import read
from hfgrow.console import Silent, size
from hfgrow.errors import GrowthError, UsageError, printable, redacted
from hfgrow.growth.grow import draft, link_of
from hfgrow.growth.models import base_name, files_of, locate
from hfgrow.growth.request import Growth, GrowthRequest
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.lineage.card_sections import drawings_of
from hfgrow.lineage.ledger import ledger
from hfgrow.lineage.manifest import Link
from hfgrow.lineage.reading import manifest_of
from hfgrow.plan.operators import OPERATORS
from hfgrow.plan.operators.operator import Operator
from hfgrow.plan.plan import GrowthPlan
from hfgrow.plan.tensors import CONFIG_DTYPES

from . import options
from .grow import parameters_of, steps_of
from .growth_text import growth_document, plan_text, promise_of
from .models import inspected
from .operator_pages import example_arguments
from .options import parameter_of
from .proof import lineage_lines
from .terminal import OPTIONS, error_lines

# What every growing command has that changes the plan.
_OF_EVERY_GROWTH: dict[str, tuple[Any, Any]] = {
    "revision": (options.RevisionOption, None),
    "dtype": (options.DtypeOption, None),
    "untested": (options.UntestedOption, False),
}
_ADDRESS = re.compile(r"https://\S+")
_KINDS = {int: "a whole number", float: "a number"}
STYLE = """
.answer table { border-collapse: collapse; margin: 0 0 1em; }
.answer table, .answer tr, .answer th, .answer td { border: 0 !important; }
.answer th, .answer td { padding: .25em 0 .25em 2em; text-align: right; }
.answer th:first-child, .answer td:first-child { text-align: left; padding-left: 0; }
.answer tbody tr:first-child td { border-top: 1px solid var(--border-color-primary) !important; }
.answer td { font-variant-numeric: tabular-nums; }
.answer .promise { font-weight: 600; }
.answer .kept { color: #1a7f4b; }
.answer .error { color: #c0392b; font-weight: 600; overflow-wrap: anywhere; }
.answer .note { opacity: .75; margin: 0 0 .3em; overflow-wrap: anywhere; }
.answer pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85em; }
.answer img { width: 100%; max-width: 560px; margin: 0 0 1em; border-radius: 6px; }
.answer summary { cursor: pointer; }
"""


@dataclass(frozen=True, slots=True)
class Field:
    """One argument or option of a command, as a form asks for it.

    Attributes:
        name: Its name, as in Python.
        typed: How it is typed: `PATTERN` or `--hidden-size`.
        help: What it is.
        kind: What a value is.
        choices: The values that there are, if they are few.
        default: What the command takes where nobody says; not typed then.
        example: What a form begins with.
        is_positional: Whether it is typed without its name.
        is_own: Whether it is the operator's, not that of every growth.
    """

    name: str
    typed: str
    help: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    example: Any
    is_positional: bool
    is_own: bool

    def value(self, given: object) -> Any:
        """Return what a form gave as a value of the command; None is none.

        Raises:
            UsageError: It is none.
        """
        if given is None or given == "":
            return False if self.kind is bool else None
        try:
            text = str(given).strip()
            value = bool(given) if self.kind is bool else self.kind(text)
        except ValueError:
            value = None
        if value is None or (self.choices and value not in self.choices):
            expected = ", ".join(self.choices) or _KINDS[self.kind]
            raise UsageError(f"{self.typed} cannot be {printable(given)}; expected {expected}")
        return value

    def words(self, value: Any) -> list[str]:
        """Return what is typed for a value."""
        if value is None or value == self.default:
            return []
        if self.kind is bool:
            return [self.typed if value else f"--no-{self.typed[2:]}"]
        return [str(value)] if self.is_positional else [self.typed, str(value)]


def fields_of(operator: str) -> list[Field]:
    """Return what is asked for a growth by an operator, in the order in which it is typed."""
    row = OPERATORS[operator]
    own = {parameter.name for parameter in row.parameters}
    examples = example_arguments(operator)
    every = (parameter_of(name, *declared) for name, declared in _OF_EVERY_GROWTH.items())
    parameters = [*parameters_of(row), *every]
    return [_field(one, examples.get(one.name), one.name in own) for one in parameters]


def _field(parameter: inspect.Parameter, example: object, is_own: bool) -> Field:
    hint, declared = get_args(parameter.annotation)[:2]
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    choices = tuple(kinds) if get_origin(hint) is Literal else ()
    kind = str if choices else kinds[0]
    if parameter.name == "dtype":
        choices = tuple(CONFIG_DTYPES)
    is_positional = isinstance(declared, ArgumentInfo)
    default = None if parameter.default is inspect.Parameter.empty else parameter.default
    return Field(
        name=parameter.name,
        typed=declared.metavar if is_positional else f"--{parameter.name.replace('_', '-')}",
        help=declared.help,
        kind=kind,
        choices=choices,
        default=default,
        example=default if example is None else kind(example),
        is_positional=is_positional,
        is_own=is_own,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the page shows.

    Attributes:
        html: The answer.
        command: What to paste into a shell; empty where there is nothing to be done.
    """

    html: str
    command: str = ""


def plan_page(
    operator: str, model: str, given: Mapping[str, object], *, only_hub: bool = False
) -> Answer:
    """Return the plan of a growth: nothing is written, and of the Hub only headers are read.

    Args:
        operator: A name in the table.
        given: What a form gave, by the names of `fields_of`; what is left out is the default.
        only_hub: Whether to plan for a stranger, by `HubClient(anonymous=True)`.
    """
    return _answered(lambda notes: _planned(operator, model, given, notes, only_hub), only_hub)


def lineage_page(model: str, *, only_hub: bool = False) -> Answer:
    """Return the lineage of a model, with the pictures of its last growth.

    Args:
        only_hub: As in `plan_page`.
    """
    return _answered(lambda notes: _lineage(model, notes, only_hub), only_hub)


class _Notes(Silent):
    """Keeps what is told on the way."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(redacted(OPTIONS.spell(f"{text}")))


def _answered(answer: Callable[[_Notes], Answer], only_hub: bool) -> Answer:
    """Return an answer, or the error that a command line would print."""
    notes = _Notes()
    try:
        found = answer(notes)
    except GrowthError as error:
        error.speak(OPTIONS)
        message, *hint = error_lines(error)
        if only_hub:
            # Where Python lies is nobody's business.
            hint = [line.replace(shlex.quote(sys.executable), "python") for line in hint]
        lines = [_paragraph(message, "error"), *(_paragraph(line, "note") for line in hint)]
        return Answer(_answer([*_paragraphs_of(notes), *lines]))
    return Answer(_answer([*_paragraphs_of(notes), found.html]), found.command)


def _planned(
    operator: str, model: str, given: Mapping[str, object], notes: _Notes, only_hub: bool
) -> Answer:
    if operator not in OPERATORS:
        raise UsageError(f"there is no operator {printable(operator)}")
    row, model = OPERATORS[operator], model.strip()
    fields = fields_of(operator)
    values = {field.name: field.value(given.get(field.name, field.default)) for field in fields}
    request = GrowthRequest(
        model=model,
        steps=steps_of(row, values),
        dry_run=True,
        **{name: values[name] for name in _OF_EVERY_GROWTH},
    )
    client = HubClient(anonymous=only_hub)
    ref = locate(model, request.revision, client, notes)
    base = read(files_of(ref, client))
    growth = draft(request, ref, base)
    words = ["hfgrow", operator, model]
    for field in fields:
        words += field.words(values[field.name])
    command = printable(shlex.join(words), 2000)
    parts = [
        _promise(growth, row),
        _sizes(growth),
        *_pictures(link_of(request, ref, growth)),
        _folded("the plan, as --dry-run prints it", plan_text(growth).splitlines()),
        _folded("the base, as hfgrow inspect prints it", _inspected(ref, base)),
    ]
    return Answer("".join(parts), command)


def _inspected(ref: ModelRef, base: GrowthPlan) -> list[str]:
    return inspected(ref.repo_id or base_name(ref), base)[0]


def _lineage(model: str, notes: _Notes, only_hub: bool) -> Answer:
    client = HubClient(anonymous=only_hub)
    ref = locate(model.strip(), None, client, notes)
    manifest = manifest_of(files_of(ref, client))
    text = _text(lineage_lines(ref, manifest, ledger(manifest)))
    growth = manifest.last_growth
    return Answer("".join([text, *(_pictures(growth) if growth else ())]))


def _promise(growth: Growth, row: Operator[...]) -> str:
    kept = " kept" if growth.plan.preserves_function else ""
    paragraphs = [
        f'<p class="promise{kept}">Function {_safe(promise_of(growth))}</p>',
        f"<p>{_safe(row.summary)} <code>{_safe(row.formula)}</code><br>{_linked(row.paper)}</p>",
    ]
    return "".join(paragraphs)


def _sizes(growth: Growth) -> str:
    """Return a table of what changes: layers, widths, parameters, bytes."""
    from hfgrow.train.estimate import all_trained_nbytes

    document, base, plan = growth_document(growth, dry_run=True), growth.base, growth.plan
    rows = [
        ("layers", *_both(document["num_hidden_layers"])),
        *((key, *_both(sizes)) for key, sizes in document["widths"].items()),
        ("parameters", *_both(document["num_parameters"])),
        ("without embeddings", *_both(document["num_non_embedding_parameters"])),
        ("weights, on disk", size(base.nbytes), size(growth.layout.nbytes)),
        (
            "memory to train it all *",
            size(all_trained_nbytes(base.num_parameters)),
            size(all_trained_nbytes(plan.num_parameters)),
        ),
    ]
    cells = "".join(
        f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    head = "<tr><th></th><th>base</th><th>grown</th></tr>"
    return (
        f"<table><thead>{head}</thead><tbody>{cells}</tbody></table>"
        f'<p class="note">* {all_trained_nbytes(1)} bytes a parameter: float32 weights, gradients '
        "and AdamW; activations come on top</p>"
    )


def _both(sizes: Mapping[str, int]) -> tuple[str, str]:
    return f"{sizes['base']:,}", f"{sizes['grown']:,}"


def _pictures(link: Link) -> Iterator[str]:
    """Yield the pictures of a growth, each as an image, in which nothing can run."""
    for name, picture in drawings_of(link).items():
        content = base64.b64encode(picture.encode()).decode()
        source = f"data:image/svg+xml;base64,{content}"
        yield f'<img alt="{_safe(name.removesuffix(".svg"))}" src="{source}">'


def _paragraphs_of(notes: _Notes) -> list[str]:
    return [_paragraph(line, "note") for line in notes.lines]


def _answer(parts: Iterable[str]) -> str:
    return f'<div class="answer">{"".join(parts)}</div>'


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{_safe(text)}</p>'


def _folded(title: str, lines: Iterable[str]) -> str:
    return f"<details><summary>{_safe(title)}</summary>{_text(lines)}</details>"


def _text(lines: Iterable[str]) -> str:
    shown = "\n".join(map(_safe, lines))
    return f"<pre>{shown}</pre>"


def _linked(text: str) -> str:
    """Return a text of ours with its addresses as links."""
    link = r'<a href="\g<0>" target="_blank" rel="noopener noreferrer">\g<0></a>'
    return _ADDRESS.sub(link, _safe(text))


def _safe(text: object) -> str:
    return escape(printable(text, 2000))
