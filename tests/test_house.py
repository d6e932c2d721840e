"""How the layout is measured: rooms, floors, arrows, circles, and the walk of a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.house import figures, route
from benchmarks.imports import circles, floors, read_house, room_arrows

CHECKOUT = Path(__file__).parents[1]

# A checkout in small: `ground` imports nothing, `job` calls back what the command line hands it.
FILES = {
    "hfgrow/__init__.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from hfgrow.job import run
        def __getattr__(name):
            from importlib import import_module
            return getattr(import_module("hfgrow.job"), name)
        """,
    "hfgrow/ground.py": "class Told: ...\ndef tell(told):\n    told()\n",
    "hfgrow/disk/__init__.py": "",
    "hfgrow/disk/read.py": """
        from hfgrow import ground
        def read(): from hfgrow.disk import write
        """,
    "hfgrow/disk/write.py": "import hfgrow.disk.read\nclass Told: ...\n",
    "hfgrow/job.py": """
        import typing
        from hfgrow.disk import read
        from hfgrow.ground import tell
        if typing.TYPE_CHECKING:
            import hfgrow.plan
        def run(told):
            read.read()
            tell(told)
        """,
    "hfgrow/plan.py": "import json\n",
    "cli/__init__.py": "",
    "cli/main.py": """
        from hfgrow import run
        from .read import words
        def main():
            run(words)
        """,
    "cli/read.py": "from . import main\ndef words(): ...\n",
    "recipes/__init__.py": "",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("\n        ", "\n").lstrip("\n"))
    return tmp_path


def follow(*arguments: str | Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with a folder before the installed packages."""
    command = [sys.executable, "-m", "benchmarks.house", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(CHECKOUT)])}
    return subprocess.run(
        command, env=environment, cwd=path, capture_output=True, text=True, check=False
    )


def test_a_module_that_is_imported_from_its_package_is_what_is_imported(checkout: Path) -> None:
    house = read_house(checkout)
    assert house.imports["hfgrow.disk.read"] == {"hfgrow.ground", "hfgrow.disk.write"}
    assert house.imports["hfgrow.disk.write"] == {"hfgrow.disk.read"}


def test_a_relative_import_is_of_the_package_it_stands_in(checkout: Path) -> None:
    assert read_house(checkout).imports["hfgrow_cli.read"] == {"hfgrow_cli.main"}


def test_a_lazy_name_of_the_front_door_is_an_import_of_its_home(checkout: Path) -> None:
    house = read_house(checkout)
    assert house.imports["hfgrow_cli.main"] == {"hfgrow.job", "hfgrow_cli.read"}
    assert house.imports["hfgrow"] == set()


def test_imports_in_functions_and_for_type_checkers_do_not_run_at_import(checkout: Path) -> None:
    house = read_house(checkout)
    assert house.imports["hfgrow.job"] - house.run_imports["hfgrow.job"] == {"hfgrow.plan"}
    assert house.run_imports["hfgrow.disk.read"] == {"hfgrow.ground"}


def test_a_circle_of_files_is_found_with_the_imports_that_close_it(checkout: Path) -> None:
    house = read_house(checkout)
    command_line = ["hfgrow_cli.main", "hfgrow_cli.read"]
    assert circles(house.imports) == [["hfgrow.disk.read", "hfgrow.disk.write"], command_line]
    assert circles(house.run_imports) == [command_line]


def test_a_floor_is_the_longest_way_down(checkout: Path) -> None:
    house = read_house(checkout)
    rooms = {"ground": 1, "plan": 1, "disk": 2, "job": 3, "cli": 4}
    assert floors(room_arrows(house.imports)) == rooms


def test_a_circle_is_one_floor() -> None:
    arrows = {"top": {"a"}, "a": {"b"}, "b": {"c", "ground"}, "c": {"a"}}
    assert floors(arrows) == {"top": 3, "a": 2, "b": 2, "c": 2, "ground": 1}


def test_the_figures_are_those_of_the_checkout(checkout: Path) -> None:
    text = figures(read_house(checkout))
    lines = sum(path.read_text().count("\n") for path in checkout.rglob("*.py"))
    assert f"| lines | {lines} |" in text
    for line in (
        "| files in hfgrow/, cli/ and recipes/ | 11 |",
        "| rooms at the root of hfgrow/ | 4 |",
        "| arrows between rooms | 5 | 4 |",
        "| arrows between files | 9 | 7 |",
        "| longest chain of files | 4 | 4 |",
        "| circles of files | 2 | 1 |",
        "modules twice: read",
        "classes twice: Told",
    ):
        assert line in text


def test_a_call_that_goes_up_is_a_climb_and_a_room_come_back_to_a_return(checkout: Path) -> None:
    main, job, ground = "hfgrow_cli.main", "hfgrow.job", "hfgrow.ground"
    calls = [(None, main), (main, job), (job, ground), *[(ground, "hfgrow_cli.read")] * 2]
    text = route(read_house(checkout), calls)
    for row in ("files | 4", "climbs | 2 calls, 1 pairs of files", "steps up | 1", "returns | 1"):
        assert f"| {row} |" in text


def test_a_walk_lists_the_files_whose_functions_a_command_calls(checkout: Path) -> None:
    (checkout / "hfgrow_cli").symlink_to("cli")
    walked = follow(checkout, "--walk", "--", "words", path=checkout)
    assert walked.stdout.splitlines()[:6] == [
        "floor  file",
        "  4  cli/main.py",
        "  3  hfgrow/job.py",
        "  2  hfgrow/disk/read.py",
        "  1  hfgrow/ground.py",
        "  4  cli/read.py",
    ]
    assert "climb: hfgrow.ground calls hfgrow_cli.read" in walked.stdout


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the walk of a growth with nothing special printed."""
    out = tmp_path_factory.mktemp("walk") / "grown"
    walked = follow("--walk", "--", "stack", "demo", "--g", "2", "--out", out, path=CHECKOUT)
    assert (out / "hfgrow.json").is_file()
    return walked.stdout


def test_a_walk_follows_the_installed_program(stacked: str) -> None:
    assert "cli/main.py" in stacked
    assert "| climbs | " in stacked


def test_a_plain_growth_enters_nothing_that_it_does_not_use(stacked: str) -> None:
    for unused in (
        "checkpoint/compute/",
        "checkpoint/derived/",
        "growth/publish.py",
        "hub/push.py",
        "hub/search.py",
    ):
        assert unused not in stacked


def test_a_program_that_is_not_of_the_checkout_is_not_walked(checkout: Path) -> None:
    refused = follow(checkout, "--walk", "--", "--version", path=CHECKOUT)
    assert refused.returncode == 2
    assert "not that checkout" in refused.stderr


def test_a_folder_without_the_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no Python files in hfgrow/"):
        read_house(tmp_path)
