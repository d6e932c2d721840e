"""Options of growing commands that add a step, and how operators explain themselves."""

import inspect
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint
from tests.program import call_hfgrow

STACK = ("stack", "base", "--g", "2")
WIDEN = ("hyperclone", "base", "--g", "2")
STEPS: list[tuple[tuple[str, ...], list[tuple[str, dict[str, object]]]]] = [
    (STACK, [("stack", {"g": 2})]),
    (
        (*STACK, "--noise-paper", "0.2", "--branch-scale", "1", "--seed", "7"),
        [
            ("stack", {"g": 2}),
            ("branch-scale", {"exponent": 1.0}),
            ("paper-noise", {"amount": 0.2, "seed": 7}),
        ],
    ),
    (
        (*WIDEN, "--noise-paper", "0", "--untie"),
        [("untie", {}), ("hyperclone", {"g": 2}), ("paper-noise", {"amount": 0.0, "seed": 0})],
    ),
    (
        ("random-depth", "base", "--g", "2", "--seed", "3", "--noise-paper", "0.2"),
        [
            ("random-depth", {"g": 2, "seed": 3, "mask": 0.0}),
            ("paper-noise", {"amount": 0.2, "seed": 3}),
        ],
    ),
]
# What is offered to some operators only -> those of a kind that have it, and those that do not.
OFFERED = {
    "--untie": (["hyperclone", "split"], ["stack", "untie", "paper-noise"]),
    "--branch-scale": (["stack", "zero-depth"], ["hyperclone", "branch-scale"]),
    "--noise-paper": (["stack", "hyperclone"], ["paper-noise", "branch-scale", "untie"]),
}


@pytest.fixture(scope="module")
def place(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extra")
    shutil.copytree(make_checkpoint(tied=True), folder / "base")
    return folder


def steps_of(place: Path, words: tuple[str, ...]) -> list[tuple[str, dict[str, object]]]:
    finished = call_hfgrow(*words, "--dry-run", "--json", cwd=place)
    assert finished.returncode == 0, finished.stdout
    steps: list[dict[str, Any]] = json.loads(finished.stdout)["steps"]
    return [(step["operator"], step["arguments"]) for step in steps]


@pytest.mark.parametrize(("words", "steps"), STEPS, ids=lambda value: str(value)[:40])
def test_extra_steps_stand_in_their_places(
    place: Path, words: tuple[str, ...], steps: list[tuple[str, dict[str, object]]]
) -> None:
    assert steps_of(place, words) == steps


@pytest.mark.parametrize("option", OFFERED)
def test_extra_steps_are_offered_where_they_make_sense(option: str) -> None:
    having, lacking = OFFERED[option]
    assert all(option in call_hfgrow(name, "--help").stdout for name in having)
    assert not any(option in call_hfgrow(name, "--help").stdout for name in lacking)


def test_a_seed_that_seeds_nothing_is_refused(place: Path) -> None:
    finished = call_hfgrow(*STACK, "--seed", "1", cwd=place)
    assert finished.returncode == 2
    assert "--noise-paper" in finished.stderr


def test_a_growth_with_every_extra_step_is_named_and_proved(place: Path) -> None:
    words = (*STACK, "--branch-scale", "0.5", "--noise-paper", "0.2")
    finished = call_hfgrow(*words, cwd=place)
    assert finished.stdout == "base-stack-g2-branch-scale-paper-noise\n", finished.stderr
    for command in ("verify", "reproduce"):
        again = call_hfgrow(command, f"./{finished.stdout.strip()}", cwd=place)
        assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("name", OPERATORS)
def test_every_argument_of_an_operator_has_help(name: str) -> None:
    told = json.loads(call_hfgrow("operators", name, "--json").stdout)["arguments"]
    assert set(told) == set(inspect.signature(OPERATORS[name].function).parameters) - {"base"}
    explained = call_hfgrow("operators", name).stdout
    shown = call_hfgrow(name, "--help").stdout
    for argument in told.values():
        assert argument["help"]
        assert argument["typed"] in shown
        assert f"  {argument['typed']}: {argument['help']}" in explained


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_explained_with_an_example_that_can_be_typed(name: str) -> None:
    row = json.loads(call_hfgrow("operators", name, "--json").stdout)
    assert row["preserves_function"] is OPERATORS[name].preserves_function
    words = shlex.split(row["example"])
    # branch-scale makes sense behind another operator only, as an option of it.
    operator = "stack" if name == "branch-scale" else name
    assert words[:3] == ["hfgrow", operator, "MODEL"]
    assert name in row["example"]
    finished = call_hfgrow(operator, "./no-such-folder", *words[3:])
    assert "there is no folder" in finished.stderr or "no-such-folder" in finished.stderr
    assert not re.search(r"[Mm]issing|[Nn]o such option|[Ii]nvalid", finished.stderr)


def test_the_table_is_grouped_by_axis() -> None:
    lines = call_hfgrow("operators").stdout.splitlines()
    named = [line.split()[0] for line in lines if line and "function preserving" not in line]
    assert sorted(named) == sorted(OPERATORS)
    heads = [line.split()[0] for line in lines if line.endswith("function preserving")]
    assert heads == list(dict.fromkeys(row.axis for row in OPERATORS.values()))
