"""The script for a GPU: what it asks for there, and every part at toy sizes on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "h200.sh"


def test_on_a_gpu_the_smallest_size_alone_is_trained_without_compiled_layers_too(
    tmp_path: Path,
) -> None:
    for name in ("python", "hfgrow"):
        (tmp_path / name).write_text(f'#!/bin/sh\nIFS="|"; echo "$*" >> {tmp_path}/typed\n')
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PYTHON": str(tmp_path / "python")}
    subprocess.run(
        ["bash", SCRIPT, "out"], env=environment, cwd=tmp_path, capture_output=True, check=False
    )
    typed = [line.split("|") for line in (tmp_path / "typed").read_text().splitlines()]
    trained = [words for words in typed if words[:2] == ["-m", "benchmarks.train"]]
    compiled = ["hfgrow, compiled", "Trainer, compiled"]
    assert {
        words[words.index("--sizes") + 1]: words[words.index("--entries") + 1 : -6]
        for words in trained
    } == {"1.1B": compiled, "0.13B": [*compiled, "hfgrow", "Trainer"], "0.36B": compiled}


@pytest.mark.slow
def test_the_page_has_what_a_failed_command_said_as_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "learn.ended").write_text("8 3")
    (tmp_path / "learn.log").write_text("")
    error = {"message": "the loss is not finite", "hint": "a lower rate"}
    (tmp_path / "learn.said").write_text(json.dumps({"error": error}))
    subprocess.run(
        [sys.executable, "-m", "benchmarks.h200", tmp_path, out], cwd=SCRIPT.parents[1], check=True
    )
    page = (out / "results.md").read_text()
    assert page.endswith("learn failed:\n\n    the loss is not finite\n    a lower rate\n")


def toy(folder: Path, limit_s: int) -> tuple[subprocess.CompletedProcess[str], dict[str, int]]:
    """Run all parts in a folder; return how that ended, and the exit code of each part."""
    finished = subprocess.run(
        ["bash", SCRIPT, "--toy", "out"],
        env=os.environ | {"PYTHON": sys.executable, "LIMIT_S": str(limit_s)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    parts = json.loads((folder / "out" / "results.json").read_text())["parts"]
    return finished, {name: part["exit_code"] for name, part in parts.items()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_runs_at_toy_sizes(tmp_path: Path) -> None:
    finished, codes = toy(tmp_path, 1700)
    assert codes == dict.fromkeys(("text", "study", "learn", "train-toy"), 0), finished.stderr
    assert finished.returncode == 0
    assert finished.stdout == (tmp_path / "out" / "results.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_parts_that_fail_are_told_and_counted(tmp_path: Path) -> None:
    finished, codes = toy(tmp_path, 0)
    assert codes == dict.fromkeys(("text", "study", "learn", "train-toy"), 1)
    assert finished.returncode == 1
    assert finished.stderr.endswith("no time was left\nparts that failed: 4\n")
    assert "train-toy failed:\n\n    no time was left" in finished.stdout
