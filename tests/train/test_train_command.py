"""`hfgrow train`, as a newcomer types it: in another folder, through the console script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgrow.errors import HubRefusedError, UsageError
from hfgrow.lineage.reading import read_manifest
from hfgrow.train import processes
from hfgrow.train.processes import launch_command, start
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING, talk_here
from tests.program import Finished, call_hfgrow, program, run_hfgrow
from tests.train import runs

GROWN: list[dict[str, Any]] = [
    {"train": {"tokens": 512, "learning_rate": 1e-3}},
    {"grow": {"operator": "stack", "g": 2}},
    {"train": {"tokens": 512, "learning_rate": 1e-3}},
]


def written(folder: Path, **changes: Any) -> str:
    (folder / "mine.yaml").write_text(yaml.safe_dump(runs.recipe(folder, **changes)))
    return "mine.yaml"


def train(folder: Path, *words: str) -> Finished:
    return run_hfgrow("train", *words, cwd=folder, timeout=120)


def called(folder: Path, *words: str) -> Finished:
    """Run the command in this process: for what it says itself, before it starts others."""
    return call_hfgrow("train", *words, cwd=folder)


def test_the_command_prints_the_folder_of_a_model_with_its_whole_story(tmp_path: Path) -> None:
    recipe = written(tmp_path, stages=GROWN, output="run")
    done = train(tmp_path, recipe, "--cpu")
    assert (done.returncode, done.stdout) == (0, "run/final\n"), done.stderr
    final = tmp_path / "run" / "final"
    manifest = read_manifest(final)
    assert manifest is not None
    assert [type(link).__name__ for link in manifest.chain] == [
        "TrainingLink",
        "Link",
        "TrainingLink",
    ]
    assert [link.compute.tokens for link in manifest.trainings] == [512, 512]
    assert (final / "loss.png").read_bytes().startswith(b"\x89PNG")
    card = (final / "README.md").read_text()
    assert "![loss](loss.png)" in card
    assert "512 tokens" in card
    assert str(tmp_path) not in card
    shown = run_hfgrow("lineage", str(final), cwd=tmp_path)
    assert shown.stdout.count("trained on 512 tokens") == 2


@pytest.mark.case("H8")
@pytest.mark.slow
def test_the_losses_before_and_after_growth_are_told(tmp_path: Path) -> None:
    """H8: measured against the base, reported."""
    done = train(tmp_path, written(tmp_path, stages=GROWN, output="run"), "--cpu")
    (told,) = (line for line in done.stderr.splitlines() if "before growth" in line)
    for word in ("just after", "after training"):
        assert word in told


def test_a_dry_run_prints_the_recipe_with_every_default_and_does_nothing(tmp_path: Path) -> None:
    recipe = written(tmp_path, output="run")
    done = called(tmp_path, recipe, "--dry-run", "--yaml", "--set", "seed=9")
    assert done.returncode == 0
    spelt_out = yaml.safe_load(done.stdout)
    assert spelt_out["seed"] == 9
    assert spelt_out["optimizer"]["betas"] == [0.9, 0.95]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_json_is_one_document_also_of_an_error(tmp_path: Path) -> None:
    recipe = written(tmp_path, output="run")
    done = train(tmp_path, recipe, "--cpu", "--json")
    told = json.loads(done.stdout)
    assert told["folder"] == "run/final"
    assert told["tokens"] == 1024
    assert told["seconds"] > 0
    (loss,) = told["losses"].values()
    assert loss["after"] < 10
    assert set(told["removable_nbytes"]) >= {"checkpoints", "tokens"}
    again = train(tmp_path, recipe, "--cpu", "--json")
    assert again.returncode == 7
    assert json.loads(again.stdout)["error"]["exit_code"] == 7


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nonsense"], 2, "there is no recipe nonsense"),
        (["mine.yaml", "other.py"], 2, "other.py is one word too many"),
        (["mine.yaml", "--set", "batch_tokens=100"], 2, "a multiple of 128"),
        (["mine.yaml", "--set", "optimiser.name=adamw"], 2, "did you mean optimizer"),
        (["mine.yaml", "--set", "tokenizer=./gone"], 2, "gone"),
        (["mine.yaml", "--set", "data.train.0.path=gone.txt"], 2, "gone.txt"),
        (["mine.yaml", "--yaml"], 2, "--dry-run"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    written(tmp_path, output="run")
    done = called(tmp_path, *words, "--cpu")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_refuses_a_text_that_is_not_there_before_torch_is_loaded(tmp_path: Path) -> None:
    written(tmp_path, output="run")
    done = called(tmp_path, "mine.yaml", "--dry-run", "--set", "data.train.0.path=gone.txt")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: there is no file or folder gone.txt\nHint: name one ")


@pytest.mark.parametrize(
    ("grow", "said"),
    [
        ({"operator": "stack", "g": 2, "layers": 4}, "either a factor g or layers"),
        ({"operator": "zero-width"}, "Hint: try g: 2"),
        ({"operator": "progressive", "g": 2}, "Hint: use stack: operator: stack, g: 4"),
    ],
    ids=str,
)
@pytest.mark.parametrize("flag", [pytest.param("--cpu", marks=pytest.mark.slow), "--dry-run"])
def test_a_growth_that_cannot_be_is_told_in_keys(
    tmp_path: Path, grow: dict[str, object], said: str, flag: str
) -> None:
    stages = [{"grow": grow}, {"train": {"tokens": 512, "learning_rate": 1e-3}}]
    done = called(tmp_path, written(tmp_path, stages=stages, output="run", base="demo"), flag)
    assert done.returncode == 2, done.stderr
    assert "Error: stages.0: " in done.stderr
    assert said in done.stderr.replace("growth factor", "factor")
    assert "--" not in done.stderr.partition("Error: ")[2]


@pytest.mark.case("E12")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("in_a_terminal")
def test_a_stopped_run_says_how_it_goes_on(tmp_path: Path, number: int) -> None:
    stages = [{"train": {"tokens": 256_000, "learning_rate": 1e-3}}]
    recipe = written(tmp_path, stages=stages)
    process = subprocess.Popen(
        [program(), "train", recipe, "--cpu"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > 1000):
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1].endswith("Go on with: hfgrow train mine.yaml --cpu --resume")
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_run_that_was_killed_says_what_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(processes, "launch_command", lambda *_, **__: ends)
    done = called(tmp_path, written(tmp_path), "--cpu", "--set", "seed=1")
    assert done.returncode == 8
    assert done.stderr.splitlines()[-2:] == [
        "Error: the run was ended by signal 9",
        "Hint: go on with: hfgrow train mine.yaml --cpu --set seed=1 --resume",
    ]


@pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)
def test_a_trained_model_is_pushed_with_its_curve(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    talk_here(hub, monkeypatch, token=ALICE)
    recipe = runs.recipe(tmp_path, stages=GROWN, push={"repo": "alice/trained"})
    runs.carry(recipe, draws=True, quiet=False)
    assert "Pushed: " in capfd.readouterr().err
    assert "loss.png" in hub.files("alice/trained")
    there = call_hfgrow("lineage", "alice/trained", "--json")
    assert len(json.loads(there.stdout)["chain"]) == 3


def test_a_push_that_is_not_allowed_stops_before_any_work(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk_here(hub, monkeypatch, token=ALICE)
    recipe = runs.recipe(tmp_path, push={"repo": "bob/trained"})
    with pytest.raises(HubRefusedError) as caught:
        runs.carry(recipe)
    assert caught.value.exit_code == 4
    assert not runs.lines(recipe)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus"], "says: unrecognized arguments: --bogus\n"),
        (["--num_machines", "two"], "says: argument --num_machines/--num-machines: invalid int"),
        (["--num_machines"], "--num-machines: expected one argument\n"),
        (["--num_machines", "2", "mine.py"], "says: mine.py is no option\n"),
    ],
    ids=str,
)
def test_what_accelerate_does_not_take_is_refused_before_it_starts(
    tmp_path: Path, words: list[str], said: str
) -> None:
    done = called(tmp_path, written(tmp_path, output="run"), "--cpu", "--", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "--resume" not in done.stderr
    assert done.stderr.splitlines()[-1] == "Hint: accelerate launch --help lists its options"
    assert not (tmp_path / "run").exists()


def test_what_stands_behind_two_dashes_goes_to_accelerate(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    words = launch_command(script, ["r.yaml"], num_processes=16, extra=["--num_machines", "2"])
    assert words[1:4] == ["-P", "-m", "accelerate.commands.launch"]
    assert words.count("--num_machines") == 1
    assert words[words.index("--num_machines") + 1] == "2"
    assert words[words.index("--num_processes") + 1] == "16"
    assert words[-2:] == [str(script), "r.yaml"]


@pytest.mark.parametrize("extra", [["--num_processes", "2"], ["--num-processes=2"]], ids=str)
def test_another_number_of_processes_behind_two_dashes_is_refused(extra: list[str]) -> None:
    """Accelerate would start one process, or two that share nothing."""
    with pytest.raises(UsageError, match="asked for 2 processes, the recipe for 1") as caught:
        launch_command(Path("s.py"), ["r.yaml"], num_processes=1, extra=extra)
    assert "--num-processes 2" in caught.value.hint
    assert launch_command(Path("s.py"), ["r.yaml"], num_processes=2, extra=extra)


def test_a_precision_that_accelerate_is_told_and_the_recipe_is_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(UsageError, match="precision: fp32") as caught:
        runs.carry(runs.recipe(tmp_path))
    assert "precision=bf16" in caught.value.hint


def test_no_python_file_of_the_working_folder_is_launched(tmp_path: Path) -> None:
    for name in ("accelerate.py", "torch.py"):
        (tmp_path / name).write_text("open('ran', 'w').close()\nraise SystemExit(9)\n")
    words = launch_command(Path("script.py"), [], num_processes=2)
    launcher = words[: words.index("accelerate.commands.launch") + 1]
    done = subprocess.run([*launcher, "--help"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
    assert not (tmp_path / "ran").exists()


def test_what_a_run_starts_in_turn_imports_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    words = [sys.executable, "-c", "import colorsys"]
    with (tmp_path / "log").open("wb") as log:
        process = start(words, tmp_path / "status", num_processes=1, on_cpu=True, log=log)
    assert process.wait() == 0
