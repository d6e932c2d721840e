"""The script for a GPU, at toy sizes on a CPU: every part runs, one that fails is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "h200.sh"

# Minutes where others use the cores too.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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


def test_every_part_runs_at_toy_sizes(tmp_path: Path) -> None:
    finished, codes = toy(tmp_path, 1700)
    assert codes == dict.fromkeys(("text", "study", "learn", "train-toy"), 0), finished.stderr
    assert finished.returncode == 0
    assert finished.stdout == (tmp_path / "out" / "results.md").read_text()


def test_parts_that_fail_are_told_and_counted(tmp_path: Path) -> None:
    finished, codes = toy(tmp_path, 0)
    assert codes == dict.fromkeys(("text", "study", "learn", "train-toy"), 1)
    assert finished.returncode == 1
    assert finished.stderr.endswith("no time was left\nparts that failed: 4\n")
    assert "train-toy failed:\n\n    no time was left" in finished.stdout
