"""How help looks: a first page in groups with examples, and options in groups; nothing is cut."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from hfgrow.console import wrapped

# Groups of options; those without one are a command's own.
OUTPUT, HUB, ALWAYS = "Output", "Hub", "Every command"
ORDER = ("Arguments", "Options", OUTPUT, HUB, ALWAYS)
# Groups of commands, in order; those of a group that begins like another are named in a line there.
GROW = "Grow"
IN_DEPTH, IN_WIDTH, BESIDES = f"{GROW} in depth", f"{GROW} in width", f"{GROW} besides"
TRAIN, PROVE, ON_HUB, LOOK = "Train", "Prove", "Hub", "Look"
_ORDER = (GROW, TRAIN, PROVE, ON_HUB, LOOK)
# A longer name stands in a line of its own.
_WIDEST_NAME = 32
# What a value is called where an option does not say it: by the words of typer, old and new.
_KINDS = {
    "int range": "N",
    "int": "N",
    "integer": "N",
    "integer range": "N",
    "float": "X",
    "float range": "X",
    "str": "TEXT",
    "path": "PATH",
}
_KIND = re.compile(r"<([a-z ]+)>|\b(INTEGER RANGE|INTEGER|FLOAT)\b")
_OF_ARGUMENT = re.compile(r" <[^>]*>$")
Rows = list[tuple[str, str]]


class App(typer.Typer):
    """A program, or a group of commands, whose help looks as all of ours."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            pretty_exceptions_show_locals=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            **options,
        )

    def command(self, name: str | None = None, **options: Any) -> Any:
        """Add a command."""
        return super().command(name, **{"cls": Command, **options})


class Command(TyperCommand):
    """A command whose options stand in groups, with examples behind them.

    One that needs something shows its help where nothing is given.
    """

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.no_args_is_help = any(one.required for one in self.params)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the name of the command, what must be given first."""
        arguments = [_usage(one) for one in self.params if one.param_type_name == "argument"]
        return [*arguments, "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, each in a line of its own."""
        _write_examples(self, formatter)


class Group(TyperGroup):
    """Commands, with what they do in full."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the name of the group."""
        return ["COMMAND", "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write commands and options."""
        groups: dict[str, Rows] = {panel: [] for panel in _ORDER}
        operators: dict[str, list[str]] = {}
        for name, panel, text in self.described_commands(ctx):
            if panel in (IN_DEPTH, IN_WIDTH, BESIDES):
                operators.setdefault(panel.removeprefix(f"{GROW} "), []).append(name)
            else:
                groups.setdefault(panel, []).append((name, first_sentence(text)))
        for panel, rows in groups.items():
            if panel == GROW and operators:
                # What each does would fill the page.
                named = [(how, ", ".join(names)) for how, names in operators.items()]
                write_rows(formatter, f"{GROW} (hfgrow NAME MODEL [OPTIONS])", [*named, *rows])
            elif rows:
                write_rows(formatter, panel, rows)
        _write_options(self, ctx, formatter)

    def described_commands(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """Yield every command's name, its group, and what it does."""
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None:
                yield name, "Commands", command.help or ""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, each in a line of its own."""
        _write_examples(self, formatter)


def _write_examples(command: Any, formatter: Any) -> None:
    if command.epilog:
        lines = [f"  {line}" for line in command.epilog.splitlines()]
        formatter.write("\n".join(["\nExamples:", *lines, ""]))


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    groups: dict[str, Rows] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        name, text = record
        if parameter.param_type_name == "argument":
            group, name = "Arguments", _OF_ARGUMENT.sub("", name).strip("[]")
        else:
            is_help = parameter.name == "help"
            group = getattr(parameter, "rich_help_panel", None) or (
                ALWAYS if is_help and ALWAYS in groups else "Options"
            )
            name = _KIND.sub(lambda found: _KINDS[(found[1] or found[2]).lower()], name)
        groups.setdefault(group, []).append((name, text))
    for group in sorted(groups, key=ORDER.index):
        write_rows(formatter, group, groups[group])


def write_rows(formatter: Any, title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Write a title and two columns, of which nothing is cut."""
    listed, indent = list(rows), formatter.indent_increment
    names = [len(name) for name, _ in listed if len(name) <= _WIDEST_NAME]
    behind = indent + max(names, default=0) + 2
    with formatter.section(title):
        for name, text in listed:
            begin = f"{'':{indent}}{name}"
            if len(begin) + 2 > behind:
                formatter.write(f"{begin}\n")
                begin = ""
            lines = wrapped(f"{begin:{behind}}{text}", formatter.width, behind=behind)
            formatter.write("\n".join(line.rstrip() for line in lines) + "\n")


def _usage(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper()).strip("[]")
    return name if argument.required else f"[{name}]"


def first_sentence(text: str | None) -> str:
    """Return what a list of commands says of one."""
    return " ".join((text or "").split("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."
