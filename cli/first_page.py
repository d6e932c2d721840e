"""The first page of help, and the program as it opens one command at a time."""

from collections.abc import Iterator
from typing import Any

from .commands import command_of, listed
from .help_pages import Group, write_rows

_START = (
    ("hfgrow stack demo --g 2", "grow the model inside hfgrow"),
    ("hfgrow verify demo-stack-g2", "prove what that did"),
    ("hfgrow train demo --cpu", "grow it, and train it a minute"),
    ("hfgrow inspect SmolLM2-135M", "what a model of the Hub is"),
    ("hfgrow stack TinyLlama --g 4 --dry-run", "a plan; only headers come down"),
)
_MORE = (
    ("hfgrow COMMAND --help", "the options of a command"),
    ("hfgrow operators [NAME]", "what each operator does, its formula and paper"),
    ("hfgrow aliases", "short names of models, such as TinyLlama"),
    ("hfgrow recipes [NAME]", "recipes and studies to train by, to look at or to copy"),
    ("hfgrow docs [PAGE]", "the documentation, which travels with hfgrow"),
)


class FirstPage(Group):
    """The program: what to type first, and every command in its group.

    To import and make all commands takes longer than many a growth: each is made when it is typed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._listed = listed()
        # typer looks among these for what a mistyped name is like.
        self.commands: Any = dict.fromkeys(self._listed)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, made, or None."""
        found = self._listed.get(cmd_name)
        return found and command_of(cmd_name, found.module)

    def described_commands(self, ctx: Any) -> Iterator[tuple[str, str, str]]:
        """Yield what is listed of every command."""
        for name, found in self._listed.items():
            yield name, found.group, found.sentence

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write examples, commands, options, and where there is more."""
        write_rows(formatter, "Start here", _START)
        super().format_options(ctx, formatter)
        write_rows(formatter, "Learn more", _MORE)
