"""What is imported when: the core needs the standard library only, plain commands no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hfgrow
from tests.program import environment, program

ROOT = Path(hfgrow.__file__).parent
CORE = ("errors", "plan")
HEAVY = ("torch", "transformers", "huggingface_hub", "safetensors", "accelerate", "numpy", "yaml")


def modules_of(part: str) -> list[Path]:
    single = ROOT / f"{part}.py"
    return [single] if single.is_file() else sorted((ROOT / part).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
    return found


def loaded_by(*words: str, cwd: Path) -> set[str]:
    """Run the program and return the top-level packages that it loaded."""
    command = [sys.executable, "-X", "importtime", program(), *words]
    finished = subprocess.run(
        command, env=environment(), cwd=cwd, capture_output=True, text=True, check=True
    )
    lines = [line for line in finished.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("part", CORE)
def test_the_core_imports_only_the_standard_library_and_itself(part: str) -> None:
    for path in modules_of(part):
        for name in imports_of(path):
            top, _, rest = name.partition(".")
            if top == "hfgrow":
                assert rest.partition(".")[0] in CORE, f"{path} imports {name}"
            else:
                assert top in sys.stdlib_module_names, f"{path} imports {name}"


def test_the_checkpoint_package_knows_nothing_of_what_stands_above_it() -> None:
    below = {*CORE, "checkpoint", "console"}
    for path in modules_of("checkpoint"):
        for name in imports_of(path):
            if name.startswith("hfgrow."):
                assert name.split(".")[1] in below, f"{path} imports {name}"


def test_nothing_in_the_library_imports_the_command_line() -> None:
    for path in ROOT.rglob("*.py"):
        for name in imports_of(path):
            assert name.partition(".")[0] not in ("cli", "hfgrow_cli", "typer"), path


@pytest.mark.case("I7")
@pytest.mark.parametrize("words", [("--help",), ("--version",), ("stack", "--help")], ids=str)
def test_help_and_version_load_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    assert not loaded_by(*words, cwd=tmp_path) & set(HEAVY)


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
    assert not set(finished.stdout.split()) & set(HEAVY)


def test_every_public_name_can_be_imported() -> None:
    for name in hfgrow.__all__:
        assert getattr(hfgrow, name) is not None
