"""The table of commands: what the first page says, and what is imported to say it."""

import subprocess
import sys
from importlib import import_module

import pytest

from hfgrow.plan.operators import OPERATORS
from tests.program import call_hfgrow, environment

# Installed under this name, which a reader of types does not know.
commands = import_module("hfgrow_cli.commands")
help_pages = import_module("hfgrow_cli.help_pages")


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_first_page_says_of_a_command_what_its_own_help_begins_with(name: str) -> None:
    listed = commands.COMMANDS[name]
    made = commands.command_of(name, listed.module)
    assert listed.sentence == help_pages.first_sentence(made.help)


def test_what_modules_register_is_what_is_listed() -> None:
    registered = help_pages.App()
    for module in dict.fromkeys(one.module for one in commands.listed().values()):
        import_module(f"hfgrow_cli.{module}").register(registered)
    names = [one.name for one in registered.registered_commands]
    names += [one.typer_instance.info.name for one in registered.registered_groups]
    assert sorted(map(str, names)) == sorted(commands.listed())


@pytest.mark.parametrize("name", ["train", "push", "compare", "solar"])
def test_a_command_that_needs_something_shows_its_help_where_nothing_is_given(name: str) -> None:
    said = call_hfgrow(name)
    assert said.returncode == 2
    page = said.stdout + said.stderr
    assert f"Usage: hfgrow {name} " in page
    groups = [line for line in page.splitlines() if line.endswith(":") and line[0].isalpha()]
    ordered = [f"{one}:" for one in help_pages.ORDER if f"\n{one}:\n" in page]
    assert groups == [*ordered, "Examples:"]


def test_every_operator_is_a_command() -> None:
    assert set(OPERATORS) <= set(commands.listed())


@pytest.mark.parametrize(
    ("typed", "imported"),
    [
        ("--help", set()),
        ("stack --help", {"grow", "operator_pages"}),
        ("scan --help", {"scan", "proof"}),
    ],
)
def test_only_the_module_of_a_typed_command_is_imported(typed: str, imported: set[str]) -> None:
    code = (
        "import sys; from hfgrow_cli.main import app; app(standalone_mode=False); "
        "print(*(name for name in sys.modules if name.startswith('hfgrow_cli.')))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *typed.split()],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    modules = {name.partition(".")[2] for name in done.stdout.splitlines()[-1].split()}
    assert modules & {one.module for one in commands.listed().values()} == imported
