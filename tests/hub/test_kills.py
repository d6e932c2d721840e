"""kill -9 at any moment of a pull and of a push: what is there is whole, and the next run works.

The many: `pytest -m slow tests/hub/test_kills.py tests/growth/test_interrupts.py`.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import MakeCheckpoint
from tests.hub_server import Hub
from tests.hub_server.fixtures import hub_environment
from tests.program import program, run_hfgrow

# Answers come this late, so that a run spends its time between them.
_DELAY_S = 0.03
# About as many as a run makes.
_NUM_REQUESTS = 14


@pytest.fixture
def slow_hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


def start(hub: Hub, home: Path, *words: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program(), *map(str, words), "--quiet"],
        env=hub_environment(hub, home / "hf"),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_between(hub: Hub, process: subprocess.Popen[bytes], moments: random.Random) -> bool:
    """Kill a process some time after one of its first requests; say whether it died of that."""
    wanted = len(hub.log) + moments.randint(1, _NUM_REQUESTS)
    with process:
        while process.poll() is None and len(hub.log) < wanted:
            time.sleep(0.001)
        end = time.monotonic() + moments.random() * 2 * _DELAY_S
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        process.kill()
    return process.returncode == -signal.SIGKILL


def finish(hub: Hub, home: Path, *words: str | Path) -> None:
    with start(hub, home, *words) as process:
        assert process.wait(timeout=60) == 0


def whole(path: Path, expected: bytes) -> bool:
    return path.read_bytes() == expected


def check_killed_pulls(hub: Hub, base: Path, home: Path, times: int, seed: int) -> dict[str, int]:
    """Kill pulls into one cache that is emptied whenever it is full; count what was found."""
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    hub.seed("alice/base", files)
    hub.fault("/", delay_s=_DELAY_S, times=10**9)
    moments, found = random.Random(seed), {"died": 0, "nothing": 0, "some": 0, "all": 0}
    for _ in range(times):
        died = kill_between(hub, start(hub, home, "pull", "alice/base"), moments)
        here = list(home.glob("hf/hub/models--*/snapshots/*/*"))
        assert all(whole(path, files[path.name]) for path in here)
        found["died"] += died
        kind = "all" if len(here) == len(files) else "some" if here else "nothing"
        found[kind] += 1
        if kind == "all":
            shutil.rmtree(home / "hf")
    finish(hub, home, "pull", "alice/base")
    (folder,) = home.glob("hf/hub/models--*/snapshots/*")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    return found


def check_killed_pushes(hub: Hub, base: Path, home: Path, times: int, seed: int) -> dict[str, int]:
    """Kill pushes, each to a repository of its own, and finish each; count what was found."""
    grown = home / "grown"
    assert run_hfgrow("stack", base, "--g", "2", "--out", grown).returncode == 0
    hub.fault("/", delay_s=_DELAY_S, times=10**9)
    moments = random.Random(seed)
    found = {"died": 0, "no repository": 0, "unchanged": 0, "complete": 0}
    for i in range(times):
        target = f"alice/grown{i}"
        died = kill_between(hub, start(hub, home, "push", grown, target), moments)
        # What the server was doing when the client died, it finishes.
        time.sleep(3 * _DELAY_S)
        found["died"] += died
        found[check_state_of(hub, target, grown)] += 1
        finish(hub, home, "push", grown, target)
        assert check_state_of(hub, target, grown) == "complete"
        assert len(hub.commits(target)) == 2
    return found


def check_state_of(hub: Hub, target: str, grown: Path) -> str:
    """Say what a repository holds; half a model fails the test."""
    if ("model", target) not in hub.store.repos:
        return "no repository"
    remote = hub.files(target)
    if set(remote) <= {".gitattributes"}:
        return "unchanged"
    local = {path.name for path in grown.iterdir()} - {".hfgrow-base"}
    assert set(remote) - {".gitattributes"} == local
    for name in local:
        content = remote[name]
        data = content.read_bytes() if isinstance(content, Path) else content
        assert whole(grown / name, data), name
    return "complete"


@pytest.mark.case("F-16")
def test_killed_pulls_leave_whole_files_only(
    slow_hub: Hub, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(sharded=True, tokenizer=True)
    found = check_killed_pulls(slow_hub, base, tmp_path, times=3, seed=1)
    assert found["died"] >= 1, found


@pytest.mark.case("F-16")
def test_killed_pushes_leave_the_branch_as_it_was_or_complete(
    slow_hub: Hub, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    found = check_killed_pushes(slow_hub, make_checkpoint(), tmp_path, times=2, seed=2)
    assert found["died"] >= 1, found


@pytest.mark.slow
@pytest.mark.case("F-16")
def test_sixty_killed_pulls_leave_whole_files_only(
    slow_hub: Hub, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    base = make_checkpoint(sharded=True, tokenizer=True)
    found = check_killed_pulls(slow_hub, base, tmp_path, times=60, seed=3)
    print(f"pulls: {found}")
    assert found["died"] >= 30, found


@pytest.mark.slow
@pytest.mark.case("F-16")
def test_sixty_killed_pushes_leave_the_branch_as_it_was_or_complete(
    slow_hub: Hub, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    found = check_killed_pushes(slow_hub, make_checkpoint(), tmp_path, times=60, seed=4)
    print(f"pushes: {found}")
    assert found["died"] >= 30, found
