"""Every command of `hfgrow`, its module, and the first page of help, which lists them all.

A module is imported when one of its commands is typed; the first page needs none of them.
"""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import typer

from .help_pages import (
    BESIDES,
    GROW,
    IN_DEPTH,
    IN_WIDTH,
    LOOK,
    ON_HUB,
    PROVE,
    TRAIN,
    App,
    Group,
    write_rows,
)

_START = (
    ("hfgrow stack demo --g 2", "grow the model inside hfgrow"),
    ("hfgrow verify demo-stack-g2", "prove what that did"),
    ("hfgrow train demo --cpu", "grow it, and train it for about a minute"),
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


class Listed(NamedTuple):
    """A command on the first page."""

    group: str
    module: str
    # The first sentence of its own help.
    sentence: str = ""


# In the order of each group of `hfgrow --help`.
COMMANDS = {
    "inspect": Listed(
        LOOK,
        "models",
        "Show a model's family, size and what can grow; of a Hub model no weight is downloaded.",
    ),
    "check": Listed(
        LOOK,
        "models",
        "Run the strict reader alone: config, index and every header, checked together.",
    ),
    "env": Listed(
        LOOK,
        "models",
        "Show versions, cores, memory, disk, accelerators and the Hub endpoint; never the token.",
    ),
    "budget": Listed(
        LOOK,
        "budget",
        "Say after how many tokens to grow, what then remains, and what both cost.",
    ),
    "scan": Listed(
        LOOK,
        "scan",
        "Run every short block of layers twice in memory, and say which one to repeat.",
    ),
    "operators": Listed(LOOK, "operator_pages", "List the growth operators, or explain one."),
    "recipes": Listed(
        LOOK,
        "library",
        "List the recipes, studies and growths inside hfgrow, print one, or copy it.",
    ),
    "aliases": Listed(LOOK, "library", "List the short names of models, and what they stand for."),
    "docs": Listed(LOOK, "library", "List the pages of the documentation, or print one."),
    "app": Listed(
        LOOK,
        "app",
        "Serve a page on this machine that plans a growth and shows a lineage, until Ctrl-C.",
    ),
    "apply": Listed(
        GROW,
        "grow",
        "Apply a list of operators in one pass, or a passthrough recipe of mergekit.",
    ),
    "learn": Listed(
        GROW, "learn", "Grow depth and width by maps that are learned from text (G_learn, LiGO)."
    ),
    "train": Listed(TRAIN, "train", "Grow and train a model as a recipe says; print its folder."),
    "clean": Listed(
        TRAIN,
        "train",
        "Remove what a finished run has no more use for; its model, record and recipe stay.",
    ),
    "eval": Listed(
        TRAIN,
        "evaluate",
        "Measure models side by side: bits per byte, nats per token and perplexity on given text.",
    ),
    "compare": Listed(
        TRAIN,
        "study",
        "Grow by each of several operators, train each for a little, and rank them by the loss.",
    ),
    "study": Listed(
        TRAIN,
        "study",
        "Train every arm of a study for every seed, and report what reaches a loss for least.",
    ),
    "data": Listed(TRAIN, "data", "Tokenise text for training."),
    "verify": Listed(
        PROVE,
        "proof",
        "Derive every tensor again from base and plan, compare bytes, load, and measure logits.",
    ),
    "lineage": Listed(
        PROVE,
        "proof",
        "Walk from a grown or trained model to its root: every growth, every training, their cost.",
    ),
    "reproduce": Listed(
        PROVE,
        "proof",
        "Rebuild a grown model from the root of its chain and compare the sha256 of its weights.",
    ),
    "card": Listed(PROVE, "proof", "Write README.md and its picture again from hfgrow.json."),
    "ungrow": Listed(
        PROVE,
        "proof",
        "Take the last growth back: the base, bit for bit, where only what was added was trained.",
    ),
    "pull": Listed(
        ON_HUB,
        "on_hub",
        "Download the files of a model that growing needs, checksums compared; print the folder.",
    ),
    "push": Listed(
        ON_HUB, "on_hub", "Push a grown model in one commit; a second push of the same is none."
    ),
    "extend-hf": Listed(
        ON_HUB, "extension", "Let the command hf run hfgrow: hf grow stack demo --g 2."
    ),
}
_OF_AXIS = {"depth": IN_DEPTH, "width": IN_WIDTH}


def listed() -> dict[str, Listed]:
    """Return all commands, and those of operators, which the first page only names."""
    from hfgrow.plan.operators import OPERATORS

    grown = {
        name: Listed(_OF_AXIS.get(operator.axis, BESIDES), "grow")
        for name, operator in OPERATORS.items()
    }
    return {**grown, **COMMANDS}


@cache
def command_of(name: str, module: str) -> Any:
    """Import the module of a command, and make this command of it and no other."""
    part = App()
    # With this it stays a group of commands, of however few.
    part.callback()(lambda: None)
    import_module(f".{module}", __package__).register(part)
    part.registered_commands = [one for one in part.registered_commands if one.name == name]
    made: Any = typer.main.get_command(part)
    return made.commands[name]


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
