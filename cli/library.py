"""Commands for what travels with hfgrow: recipes, short names of models, documentation."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from hfgrow.checkpoint.staging import replace_text, translated
from hfgrow.console import size
from hfgrow.errors import OutputError, UsageError, printable
from hfgrow.hub.search import DEMO, load_aliases
from hfgrow.train.recipe.files import shipped_recipes, summary_of

from . import options
from .completion import all_recipes, documentation, pages
from .terminal import Console, near, paragraphs, say_block

_RECIPES_EXAMPLES = """\
hfgrow recipes
hfgrow recipes demo
hfgrow recipes demo --copy mine.yaml"""
_ALIASES_EXAMPLES = """\
hfgrow aliases
hfgrow aliases --json"""
_DOCS_EXAMPLES = """\
hfgrow docs
hfgrow docs training | less"""
# The command that takes a shipped recipe -> the folder where such recipes lie.
_FOLDERS = {"train": "", "study": "studies", "apply MODEL": "growths"}


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("recipes", epilog=_RECIPES_EXAMPLES)(recipes)
    app.command("aliases", epilog=_ALIASES_EXAMPLES)(aliases)
    app.command("docs", epilog=_DOCS_EXAMPLES)(docs)


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="One of them, to print.", autocompletion=all_recipes),
    ] = None,
    copy: Annotated[
        Path | None,
        typer.Option("--copy", metavar="FILE", help="Write it into a file, to change it."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List the recipes, studies and growths inside hfgrow, print one, or copy it."""
    console = Console(as_json=json, quiet=quiet)
    kinds = {command: shipped_recipes(folder) for command, folder in _FOLDERS.items()}
    if name is None:
        if copy is not None:
            raise UsageError("--copy copies one recipe, and none is named", hint="hfgrow recipes")
        lines: list[str] = []
        found: list[dict[str, str]] = []
        for command, shipped in kinds.items():
            lines.append(f"{'' if not lines else chr(10)}hfgrow {command} NAME")
            told = {key: summary_of(file) for key, file in shipped.items()}
            lines += paragraphs(told.items(), console.width, indent=2)
            found += [
                {"name": key, "command": command.split()[0], "summary": text}
                for key, text in told.items()
            ]
        console.result("\n".join(lines), {"recipes": found})
        console.say("Next: hfgrow recipes NAME, and to change one: --copy FILE.yaml")
        return
    command, key = _kind(name, kinds)
    text = kinds[command][key].read_text(encoding="utf-8")
    document: dict[str, Any] = {"name": key, "command": command.split()[0], "text": text}
    if copy is None:
        console.result(text.rstrip("\n"), document)
        return
    out = copy.expanduser()
    out = out / f"{key}.yaml" if out.is_dir() else out
    shown = printable(out, 200)
    if out.exists() and not overwrite:
        raise OutputError(f"the file {shown} exists", hint="add --overwrite, or give another name")
    with translated(shown):
        replace_text(out, text)
    rows = [("where", f"{shown}, {size(len(text.encode()))}")]
    say_block(console, f"Copied {key}", rows, f"hfgrow {command} {shlex.quote(shown)} --dry-run")
    console.result(str(out), {**document, "copied": str(out)})


def _kind(name: str, kinds: dict[str, Any]) -> tuple[str, str]:
    """Return the command that a shipped recipe is for, and its name without `.yaml`.

    Raises:
        UsageError: There is none.
    """
    key = name.removesuffix(".yaml")
    for command, shipped in kinds.items():
        if key in shipped:
            return command, key
    every = [one for shipped in kinds.values() for one in shipped]
    raise UsageError(
        f"hfgrow has no recipe {printable(name)}", hint=near(key, every) or "hfgrow recipes"
    )


def aliases(json: options.JsonOption = False, quiet: options.QuietOption = False) -> None:
    """List the short names of models, and what they stand for."""
    console = Console(as_json=json, quiet=quiet)
    rows: list[tuple[str, str, str, str | None]] = [(DEMO, "the model inside hfgrow", "1.4M", None)]
    rows += [(one.name, one.repo_id, one.note, one.revision) for one in load_aliases().values()]
    told = [
        (printable(name), f"{printable(repo, 100)}{f'; {printable(note)}' if note else ''}")
        for name, repo, note, _ in rows
    ]
    keys = ("alias", "repo", "note", "revision")
    document = {"aliases": [dict(zip(keys, row, strict=True)) for row in rows]}
    console.result("\n".join(paragraphs(told, console.width)), document)


def docs(
    page: Annotated[
        str | None,
        typer.Argument(metavar="PAGE", help="One of them, to print.", autocompletion=pages),
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List the pages of the documentation, or print one."""
    console = Console(as_json=json, quiet=quiet)
    found = documentation()
    if page is None:
        told = {name: _title(file) for name, file in found.items()}
        document = {"pages": [{"name": name, "title": text} for name, text in told.items()]}
        console.result("\n".join(paragraphs(told.items(), console.width)), document)
        console.say("Next: hfgrow docs PAGE, such as: hfgrow docs training | less")
        return
    key = page.removesuffix(".md").removeprefix("docs/")
    if key not in found:
        raise UsageError(
            f"there is no page {printable(page)}",
            hint=near(key, found) or f"one of {', '.join(found)}",
        )
    text = found[key].read_text(encoding="utf-8")
    console.result(text.rstrip("\n"), {"name": key, "text": text})


def _title(page: Path) -> str:
    with page.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
