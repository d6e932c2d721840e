"""Kills and signals at any moment: the output is absent or complete, and the next run works."""

import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.checkpoints import MakeCheckpoint
from tests.program import environment, handling, program, run_hfgrow

pytestmark = pytest.mark.usefixtures("in_a_terminal")

FILES = {
    ".hfgrow-base",
    "README.md",
    "config.json",
    "generation_config.json",
    "hfgrow.json",
    "layers.svg",
    "model.safetensors",
}


@pytest.fixture(scope="module")
def big_base(make_checkpoint: MakeCheckpoint) -> Path:
    """8 MB, so that a run spends its time on writing as well as on starting."""
    return make_checkpoint(intermediate_size=5000)


def check_complete(folder: Path) -> str:
    """The hash of a complete output; what is not complete fails the test."""
    assert {path.name for path in folder.iterdir()} == FILES
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def start(base: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [program(), "stack", str(base), "--out", str(out), *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_staging(process: subprocess.Popen[str], out: Path) -> None:
    staging = out.parent / f".{out.name}.hfgrow-staging"
    while process.poll() is None and not staging.exists():
        time.sleep(0.001)


def check_kills_at_random(base: Path, folder: Path, times: int, seed: int) -> dict[str, int]:
    """Kill runs of g=2 and g=3 over the same output; return how often what was found."""
    out = folder / "out"
    whole: dict[str, str] = {}
    for g in ("2", "3"):
        assert run_hfgrow("stack", base, "--g", g, "--out", folder / g).returncode == 0
        whole[check_complete(folder / g)] = g
    moments = random.Random(seed)
    found = {"absent": 0, "2": 0, "3": 0, "died": 0}
    for i in range(times):
        with start(base, out, "--g", str(2 + i % 2), "--overwrite") as process:
            # A quarter of the kills hit the start of the program, the rest its writing.
            if moments.random() > 0.25:
                wait_for_staging(process, out)
            time.sleep(moments.random() * 0.12)
            process.kill()
        found["died"] += process.returncode == -signal.SIGKILL
        found[whole[check_complete(out)] if out.exists() else "absent"] += 1
    assert run_hfgrow("stack", base, "--g", "2", "--out", out, "--overwrite").returncode == 0
    assert whole[check_complete(out)] == "2"
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "out"]
    return found


@pytest.mark.case("E10")
def test_twenty_kills_leave_the_output_absent_or_complete(big_base: Path, tmp_path: Path) -> None:
    """E10 and promise 2."""
    found = check_kills_at_random(big_base, tmp_path, 20, seed=1)
    assert found["died"] >= 5, found


@pytest.mark.case("E10")
@pytest.mark.slow
def test_a_hundred_kills_leave_the_output_absent_or_complete(
    big_base: Path, tmp_path: Path
) -> None:
    found = check_kills_at_random(big_base, tmp_path, 100, seed=2)
    print(f"growths: {found}")
    assert found["died"] >= 25, found


@pytest.mark.case("E12")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_run_and_leaves_nothing(
    big_base: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with start(big_base, tmp_path / "out", "--g", "200") as process:
        wait_for_staging(process, tmp_path / "out")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case("E12")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_as_nohup_does_changes_nothing(
    big_base: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with (
        handling({number: signal.SIG_IGN}),
        start(big_base, tmp_path / "out", "--g", "8") as process,
    ):
        wait_for_staging(process, tmp_path / "out")
        assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    check_complete(tmp_path / "out")


@pytest.mark.case("E12")
@pytest.mark.parametrize("pause_s", [0.0, 0.003, 0.02])
def test_a_second_interrupt_leaves_nothing_either(
    big_base: Path, tmp_path: Path, pause_s: float
) -> None:
    with start(big_base, tmp_path / "out", "--g", "200") as process:
        wait_for_staging(process, tmp_path / "out")
        process.send_signal(signal.SIGINT)
        time.sleep(pause_s)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case("E7", "E12")
def test_a_signal_keeps_the_old_output(big_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_hfgrow("stack", big_base, "--g", "2", "--out", out).returncode == 0
    before = check_complete(out)
    with start(big_base, out, "--g", "200", "--overwrite") as process:
        wait_for_staging(process, out)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert check_complete(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.case("E13")
def test_of_two_runs_one_is_told_about_the_other(big_base: Path, tmp_path: Path) -> None:
    """E13: the second exits with 7, soon, and the first one is not disturbed."""
    out = tmp_path / "out"
    with start(big_base, out, "--g", "200") as first:
        wait_for_staging(first, out)
        os.kill(first.pid, signal.SIGSTOP)
        started = time.monotonic()
        second = run_hfgrow("stack", big_base, "--g", "2", "--out", out)
        assert time.monotonic() - started < 10
        os.kill(first.pid, signal.SIGCONT)
        first.terminate()
        first.communicate(timeout=30)
    assert second.returncode == 7
    assert "another run is writing" in second.stderr
    assert run_hfgrow("stack", big_base, "--g", "2", "--out", out).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
