"""The map of the house: its rooms, who stands on whose shoulders, and what costs start-up.

`ROOMS` is the architecture. A room imports itself and what stands on a floor below its own:
nothing goes up, nothing goes round in a circle. docs/architecture.md walks through it.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import hfgrow
from benchmarks.imports import circles, import_nodes, read_house, room_of
from tests.program import environment, program

ROOT = Path(hfgrow.__file__).parent
HOUSE = read_house(ROOT.parent)
# Each takes longer to import than a small growth takes in all.
HEAVY = frozenset(
    (
        "accelerate",
        "gradio",
        "huggingface_hub",
        "matplotlib",
        "numpy",
        "pydantic",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
        "yaml",
    )
)
# Where it is installed, typer imports it itself.
OF_TYPER = {"pydantic"}


@dataclass(frozen=True)
class Room:
    """A floor, and what no file of the room may import at its top."""

    floor: int
    not_at_the_top: frozenset[str] = HEAVY
    only_the_standard_library: bool = False


ROOMS = {
    "demo": Room(1),
    "errors": Room(1, only_the_standard_library=True),
    "console": Room(2),
    "plan": Room(2, only_the_standard_library=True),
    "checkpoint": Room(3),
    "hub": Room(4),
    "lineage": Room(4),
    "growth": Room(5),
    "data": Room(5, HEAVY - {"numpy"}),
    "train": Room(6, HEAVY - {"numpy", "pydantic", "safetensors", "torch", "transformers", "yaml"}),
    "study": Room(7, HEAVY - {"numpy", "pydantic"}),
    "calls": Room(8),
    "cli": Room(9),
    "recipes": Room(9),
    "__main__": Room(10),
}


def arrows() -> Iterator[tuple[str, str]]:
    """Every import of one module of the house by another, the front door left out."""
    for module, others in sorted(HOUSE.imports.items()):
        for other in sorted(others):
            if room_of(module) and room_of(other):
                yield module, other


def packages_of(module: str, *, at_the_top: bool = False) -> Iterator[str]:
    """The packages that a module imports, wherever in it or when it is imported itself."""
    for node, kind in import_nodes(HOUSE.trees[module]):
        if at_the_top and kind != "run":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif not node.level:
            yield (node.module or "").partition(".")[0]


def test_every_module_has_a_room() -> None:
    rooms = {room_of(module) for module in HOUSE.files} - {None}
    assert rooms == set(ROOMS)


def test_the_page_on_the_house_has_this_table() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    told = {
        Path(path).stem: int(floor)
        for floor, names in re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
        for path in re.findall(r"`([^`]+)`", names)
    }
    assert told == {name: room.floor for name, room in ROOMS.items()}


def test_no_import_goes_up_or_across() -> None:
    wrong = [
        f"{module} (floor {ROOMS[room].floor}) imports {other} (floor {ROOMS[below].floor})"
        for module, other in arrows()
        if (room := room_of(module)) != (below := room_of(other))
        and room is not None
        and below is not None
        and ROOMS[below].floor >= ROOMS[room].floor
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(HOUSE.imports) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_at_its_top_that_costs_start_up(room: str) -> None:
    wrong = [
        f"{module} imports {top} at its top"
        for module in HOUSE.files
        if room_of(module) == room
        for top in packages_of(module, at_the_top=True)
        if top in ROOMS[room].not_at_the_top
    ]
    assert wrong == []


@pytest.mark.parametrize("room", [name for name, r in ROOMS.items() if r.only_the_standard_library])
def test_the_core_needs_the_standard_library_only(room: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in HOUSE.files
        if room_of(module) == room
        for name in packages_of(module)
        if name != "hfgrow" and name not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_nothing_in_the_library_imports_the_command_line() -> None:
    for module in HOUSE.files:
        if room_of(module) not in ("cli", "recipes", "__main__"):
            assert not {"cli", "hfgrow_cli", "hfgrow_recipes", "typer"} & set(
                packages_of(module)
            ), module


def loaded_by(*words: str, cwd: Path) -> set[str]:
    """Run the program and return the top-level packages that it loaded."""
    command = [sys.executable, "-X", "importtime", program(), *words]
    finished = subprocess.run(
        command, env=environment(), cwd=cwd, capture_output=True, text=True, check=True
    )
    lines = [line for line in finished.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.case("I7")
@pytest.mark.parametrize("words", [("--help",), ("--version",), ("stack", "--help")], ids=str)
def test_help_and_version_load_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    assert not loaded_by(*words, cwd=tmp_path) & (HEAVY - OF_TYPER)


@pytest.mark.case("E18", "I7")
@pytest.mark.parametrize(
    "words",
    [
        ("stack", "./base", "--g", "2", "--out", "out"),
        ("partial", "./base", "123*2-4", "--max-shard-size", "50KB", "--out", "out"),
        ("stack", "./base", "--g", "2", "--dry-run"),
        ("inspect", "./base"),
        ("check", "./base"),
        ("operators",),
        ("budget", "./base", "--tokens", "1B"),
    ],
    ids=" ".join,
)
def test_plain_commands_load_no_torch(words: tuple[str, ...], base: Path) -> None:
    """I7 and E18: growing is copying."""
    loaded = loaded_by(*words, cwd=base.parent)
    assert not loaded & {"torch", "transformers", "safetensors", "accelerate", "numpy"}


def test_importing_the_library_costs_nothing(tmp_path: Path) -> None:
    code = "import sys, hfgrow; print(*(name for name in sys.modules))"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    ours = {name for name in finished.stdout.split() if name.startswith("hfgrow")}
    assert ours == {"hfgrow"}
    assert not set(finished.stdout.split()) & HEAVY


def test_every_public_name_can_be_imported() -> None:
    for name in hfgrow.__all__:
        assert getattr(hfgrow, name) is not None


def test_a_python_that_is_launched_imports_nothing_from_the_folder_it_runs_in() -> None:
    lists = (
        [ast.unparse(word) for word in node.elts[:2]]
        for tree in HOUSE.trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.List)
    )
    launches = [words for words in lists if words[:1] == ["sys.executable"]]
    assert len(launches) >= 4
    assert all(words[1:] == ["'-P'"] for words in launches)


def test_the_program_as_a_module_imports_nothing_from_the_folder_one_works_in(
    tmp_path: Path,
) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit(9)\n")
    for flags in ([], ["-P"]):
        words = [sys.executable, *flags, "-m", "hfgrow", "--version"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
