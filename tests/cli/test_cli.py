"""The program: exit codes, one JSON document, what goes to stdout and what to stderr."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS
from tests.checkpoints import MakeCheckpoint, edit_json
from tests.program import call_hfgrow, environment, program, run_hfgrow

COMMANDS = (
    *OPERATORS,
    "apply",
    *("inspect", "check", "operators", "env", "verify", "lineage", "reproduce", "card", "ungrow"),
    *("pull", "push", "extend-hf", "learn", "budget", "scan", "eval", "compare", "train", "study"),
    "data",
    *("recipes", "aliases", "docs", "clean", "app"),
)
# Mistakes by exit code; {base} is a good model, {bad} one without weights, {taken} a full folder.
MISTAKES: dict[str, tuple[int, tuple[str, ...]]] = {
    "no command": (2, ()),
    "unknown command": (2, ("stak", "{base}")),
    "unknown option": (2, ("stack", "{base}", "--gg", "4")),
    "option twice": (2, ("stack", "{base}", "--g", "2", "--out", "o", "--g=3")),
    "switch twice": (2, ("stack", "{base}", "--g", "2", "--dry-run", "--dry-run")),
    "option for a name": (2, ("stack", "--", "-x")),
    "missing model": (2, ("stack", "--g", "4")),
    "missing target": (2, ("stack", "{base}")),
    "two targets": (2, ("stack", "{base}", "--g", "2", "--layers", "8")),
    "g of text": (2, ("stack", "{base}", "--g", "four")),
    "g of a fraction": (2, ("stack", "{base}", "--g", "1.5")),
    "g of 1": (2, ("stack", "{base}", "--g", "1")),
    "g of 0": (2, ("stack", "{base}", "--g", "0")),
    "negative g": (2, ("stack", "{base}", "--g", "-1")),
    "g of 20 digits": (2, ("stack", "{base}", "--g", "99999999999999999999")),
    "g in scientific notation": (2, ("stack", "{base}", "--g", "1e3")),
    "layers not deeper": (2, ("stack", "{base}", "--layers", "4")),
    "unknown remainder": (2, ("stack", "{base}", "--layers", "6", "--remainder", "x")),
    "unknown dtype": (2, ("stack", "{base}", "--g", "2", "--dtype", "fp8")),
    "unknown size": (2, ("stack", "{base}", "--g", "2", "--max-shard-size", "big")),
    "wrong pattern": (2, ("partial", "{base}", "1-x")),
    "unknown operator": (2, ("operators", "nope")),
    "steps that are not there": (2, ("apply", "nowhere.yaml", "{base}")),
    "steps without a model": (2, ("apply", "nowhere.yaml")),
    "steps that are no steps": (2, ("apply", "{base}/config.json", "{base}")),
    "branches of a fraction that is none": (
        2,
        ("stack", "{base}", "--g", "2", "--branch-scale", "nan"),
    ),
    "push option without push": (2, ("stack", "{base}", "--g", "2", "--repo", "a/b")),
    "unknown name, offline": (5, ("stack", "no-such-model", "--g", "2")),
    "empty name": (2, ("stack", "", "--g", "2")),
    "bad weights": (3, ("stack", "{bad}", "--g", "2")),
    "bad weights inspected": (3, ("inspect", "{bad}")),
    "bad weights checked": (3, ("check", "{bad}")),
    "no folder": (2, ("check", "./nowhere")),
    "no lineage": (3, ("lineage", "{base}")),
    "offline and not cached": (5, ("stack", "org/not-cached", "--g", "2")),
    "output exists": (7, ("stack", "{base}", "--g", "2", "--out", "{taken}")),
    "output is the base": (7, ("stack", "{base}", "--g", "2", "--out", "{base}", "--overwrite")),
}


@pytest.fixture(scope="module")
def place(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    shutil.copytree(make_checkpoint(), folder / "base")
    shutil.copytree(make_checkpoint(), folder / "bad")
    (folder / "bad" / "model.safetensors").write_bytes(b"bad")
    (folder / "taken").mkdir()
    (folder / "taken" / "mine").touch()
    return folder


@pytest.mark.case("D3", "D9", "D12", "I5")
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_has_its_exit_code_one_line_and_no_trace(
    place: Path, mistake: str, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, words = MISTAKES[mistake]
    paths = {name: f"./{name}" for name in ("base", "bad", "taken")}
    filled = [word.format(**paths) for word in words]
    finished = call_hfgrow(*filled, *(["--json"] if as_json else []), cwd=place)
    assert finished.returncode == code, finished.stderr + finished.stdout
    assert "Traceback" not in finished.stderr
    if as_json and words:
        error = json.loads(finished.stdout)["error"]
        assert error["exit_code"] == code
        assert error["message"]
    else:
        assert finished.stdout == "" or not words
        assert finished.stderr.count("Error: ") == 1 or not words
    assert sorted(path.name for path in place.iterdir()) == ["bad", "base", "taken"]


def test_public_says_how_to_push_and_is_refused_without_push(with_grown: Path) -> None:
    words = ("stack", "./base", "--g", "2", "--out", "o5", "--public")
    finished = call_hfgrow(*words, cwd=with_grown)
    assert finished.returncode == 2
    assert "--push" in finished.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    finished = call_hfgrow(command, "--help")
    assert finished.returncode == 0
    assert finished.stdout.startswith("Usage: ")
    assert finished.stderr == ""


def test_the_program_calls_itself_by_its_name() -> None:
    assert run_hfgrow("stack", "--help").stdout.startswith("Usage: hfgrow stack ")
    hint = run_hfgrow("stack", "x", "--gg", "2").stderr.splitlines()[-1]
    assert hint == "Hint: hfgrow stack --help"


def test_the_help_lists_every_command() -> None:
    page = call_hfgrow("--help").stdout
    listed = page[page.index("Grow (") : page.index("Options:")]
    rows = set(re.findall(r"^  (\S+)  ", listed, re.MULTILINE))
    assert set(COMMANDS) - set(OPERATORS) <= rows
    assert set(OPERATORS) <= set(listed.replace(",", " ").split())


SUCCESSES: dict[str, tuple[str, ...]] = {
    "stack": ("stack", "./base", "--g", "2", "--out", "o1"),
    "dry run": ("stack", "./base", "--g", "2", "--dry-run"),
    "inspect": ("inspect", "./base"),
    "check": ("check", "./base"),
    "operators": ("operators",),
    "operator": ("operators", "partial"),
    "env": ("env",),
    "lineage": ("lineage", "./grown"),
    "reproduce": ("reproduce", "./grown"),
    "verify": ("verify", "./grown"),
    "card": ("card", "./grown"),
}


@pytest.fixture
def with_grown(place: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(place, tmp_path / "cli"))
    assert call_hfgrow("stack", "./base", "--g", "2", "--out", "grown", cwd=folder).returncode == 0
    return folder


@pytest.mark.case("I5")
@pytest.mark.parametrize("name", SUCCESSES)
def test_json_is_one_document_and_nothing_else(with_grown: Path, name: str) -> None:
    finished = call_hfgrow(*SUCCESSES[name], "--json", cwd=with_grown)
    assert finished.returncode == 0, finished.stderr
    assert isinstance(json.loads(finished.stdout), dict)
    assert finished.stderr == ""


def test_quiet_prints_the_path_alone(with_grown: Path) -> None:
    finished = call_hfgrow("stack", "./base", "--g", "2", "--out", "o2", "-q", cwd=with_grown)
    assert (finished.stdout, finished.stderr) == ("o2\n", "")


def test_stdout_is_the_path_and_stderr_the_talk(with_grown: Path) -> None:
    finished = call_hfgrow("stack", "./base", "--g", "2", "--out", "o3", cwd=with_grown)
    assert finished.stdout == "o3\n"
    lines = [line for line in finished.stderr.splitlines() if not line.startswith("Note")]
    assert lines[0].startswith("Grew 4 layers")
    assert re.fullmatch(r"  took      (less than )?\d+\.\d s", lines[-2])
    assert lines[-1] == "Next: hfgrow verify o3"
    assert len(lines) <= 10


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("stack", "base", "--g", "2"), "base-stack-g2"),
        (("stack", "base", "--layers", "6"), "base-stack-l6"),
        (("stack", "base", "--layers", "6", "--remainder", "head"), "base-stack-l6-head"),
        (("interpolate", "base", "--g", "3"), "base-interpolate-g3"),
        (("partial", "base", "12-34*2"), "base-partial-12-34x2"),
        (("solar", "base", "--overlap", "1"), "base-solar-o1"),
        (("random-depth", "base", "--g", "2", "--seed", "5"), "base-random-depth-g2"),
    ],
)
def test_the_output_is_named_after_base_and_operator(
    with_grown: Path, words: tuple[str, ...], name: str
) -> None:
    finished = call_hfgrow(*words, cwd=with_grown)
    assert finished.stdout == f"{name}\n", finished.stderr
    assert (with_grown / name / "model.safetensors").is_file()


@pytest.mark.case("I3")
def test_a_dry_run_writes_nothing_and_tells_what_the_run_does(with_grown: Path) -> None:
    words = ("stack", "./base", "--g", "3", "--max-shard-size", "60KB", "--out", "o4", "--json")
    before = sorted(with_grown.rglob("*"))
    plan: dict[str, Any] = json.loads(call_hfgrow(*words, "--dry-run", cwd=with_grown).stdout)
    assert sorted(with_grown.rglob("*")) == before
    done: dict[str, Any] = json.loads(call_hfgrow(*words, cwd=with_grown).stdout)
    assert plan | {"dry_run": False} == done
    weights = sorted((with_grown / "o4").glob("*.safetensors"))
    assert done["nbytes"] == sum(path.stat().st_size for path in weights)
    assert sorted(done["files"]) == [*(p.name for p in weights), "model.safetensors.index.json"]


def test_heads_that_cannot_grow_are_said_to_be_fixed(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
    base = make_checkpoint("llama", rope_parameters=rope)
    finished = call_hfgrow("inspect", str(base), "--json", cwd=tmp_path)
    document = json.loads(finished.stdout)
    assert "head_dim" not in document["can_grow"]
    assert "yarn" in document["cannot_grow"]["head_dim"]


def test_the_tables_of_families_and_operators_are_shown(with_grown: Path) -> None:
    found = json.loads(call_hfgrow("operators", "--json").stdout)["operators"]
    assert [row["name"] for row in found] == list(OPERATORS)
    edit_json(with_grown / "base" / "config.json", model_type="gpt5")
    finished = call_hfgrow("check", "./base", cwd=with_grown)
    assert all(name in finished.stderr for name in FAMILIES)


@pytest.mark.case("I6")
@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "xterm"}], ids=str)
def test_no_escape_byte_is_printed_outside_of_a_terminal(
    with_grown: Path, variables: dict[str, str]
) -> None:
    for words in (("stack", "./base", "--g", "x"), ("stack", "./base", "--g", "2")):
        finished = run_hfgrow(*words, cwd=with_grown, env=variables)
        assert "\x1b" not in finished.stdout + finished.stderr


@pytest.mark.case("E17")
def test_a_closed_pipe_is_no_error(with_grown: Path) -> None:
    command = f"{program()} operators --json | head -c 1 | wc -c"
    finished = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment(), capture_output=True, text=True
    )
    assert (finished.stdout.strip(), finished.stderr) == ("1", "")


@pytest.mark.case("E17")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_stdout_is_an_error_without_a_trace(with_grown: Path) -> None:
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [program(), "operators"], env=environment(), stdout=full, stderr=subprocess.PIPE
        )
    assert finished.returncode in (1, 7)
    assert b"Traceback" not in finished.stderr


@pytest.mark.case("E17")
@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_closed_and_full_streams_do_not_stop_a_growth(with_grown: Path, closed: str) -> None:
    command = f"{program()} stack ./base --g 2 --out streams --overwrite {closed}"
    finished = subprocess.run(command, shell=True, cwd=with_grown, env=environment())
    assert finished.returncode == 0
    assert (with_grown / "streams" / "hfgrow.json").is_file()
    shutil.rmtree(with_grown / "streams")


def test_an_end_of_file_that_nobody_caught_is_a_bug_and_no_abort(
    with_grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise EOFError("marshal data too short")

    monkeypatch.setattr("hfgrow_cli.proof.manifest_of", damaged)
    finished = call_hfgrow("card", with_grown / "grown")
    assert finished.returncode == 1
    assert "a bug in hfgrow: EOFError: marshal data too short" in finished.stderr
    assert "Stopped" not in finished.stderr


@pytest.mark.case("E17")
@pytest.mark.parametrize("options", ["", "--json"])
def test_a_result_that_cannot_be_printed_is_one_line(with_grown: Path, options: str) -> None:
    command = f"{program()} inspect ./base {options} >/dev/full"
    finished = subprocess.run(
        command, shell=True, cwd=with_grown, env=environment(), capture_output=True, text=True
    )
    assert finished.returncode == 7
    assert finished.stderr.count("\n") <= 2, finished.stderr
    assert "Traceback" not in finished.stderr
