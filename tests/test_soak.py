"""The same faults as everywhere, drawn at random for as long as one likes: `make soak`.

SOAK_S is the time of all in seconds, SOAK_SEED repeats a run, SOAK_ROUND begins in a later round of
it: each failure prints them. Full disks are tmpfs of a few megabytes, where one may mount them.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import GrowthError
from hfgrow.hub.client import HubClient
from tests.checkpoint.test_small_disks import mount, mount_tmpfs  # noqa: F401
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING
from tests.hub_server.pulls import BASE, fetch
from tests.hub_server.pushes import FILES, TARGET, check, content, fill, send
from tests.program import call_hfgrow, environment, program, run_hfgrow
from tests.train import runs

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING),
]

SEED = os.environ.get("SOAK_SEED") or str(random.SystemRandom().randrange(10**6))
FIRST_ROUND = int(os.environ.get("SOAK_ROUND", "0"))
SECONDS = float(os.environ.get("SOAK_S", "600"))
_NUM_KINDS = 5


def rounds(kind: str) -> Iterator[random.Random]:
    """Yield what draws the faults of a round, until this kind's share of the time is up."""
    end = time.monotonic() + SECONDS / _NUM_KINDS
    for number in count(FIRST_ROUND):
        print(f"SOAK_SEED={SEED} SOAK_ROUND={number} make soak, {kind}")
        yield random.Random(f"{SEED} {kind} {number}")
        if time.monotonic() > end:
            return


@dataclass(frozen=True)
class Whole:
    """A command that was let run to its end: what it made, and how long that took."""

    words: Sequence[str | Path]
    files: dict[str, bytes]
    seconds: float


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a model folder holds beside the note of where its base lies."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".hfgrow-base"
    }


def carried_out(words: Sequence[str | Path], out: Path, cwd: Path) -> Whole:
    begun = time.monotonic()
    done = run_hfgrow(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return Whole(words, contents(out), time.monotonic() - begun)


def kill_after(words: Sequence[str | Path], seconds: float, cwd: Path) -> None:
    """Start the program, and kill all its processes some time later."""
    process = subprocess.Popen(
        [program(), *map(str, words)],
        cwd=cwd,
        env=environment(OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        if process.poll() is None:
            for pid in reversed(runs._family(process.pid)):
                os.kill(pid, signal.SIGKILL)


GROWTHS = {
    "stack": ("stack", "base", "--g", "2"),
    "shards": ("partial", "base", "12-34*2", "--max-shard-size", "50KB"),
    "dtype": ("interpolate", "base", "--g", "2", "--dtype", "bfloat16"),
    "width": ("hyperclone", "base", "--g", "2"),
}


def test_a_growth_that_is_killed_at_any_moment_leaves_a_whole_output_or_none(
    base: Path, tmp_path: Path
) -> None:
    before, out = contents(base), tmp_path / "out"
    known: dict[str, Whole] = {}
    for moments in rounds("growths that are killed"):
        name = moments.choice(sorted(GROWTHS))
        words = (*GROWTHS[name], "--out", "out", "--overwrite")
        if name not in known:
            known[name] = carried_out(words, out, tmp_path)
        older = known[moments.choice(sorted(known))] if moments.random() < 0.5 else None
        shutil.rmtree(out)
        if older is not None:
            carried_out(older.words, out, tmp_path)
        kill_after(words, moments.random() * 1.1 * known[name].seconds, tmp_path)
        found = contents(out) if out.exists() else None
        assert found in (known[name].files, older.files if older else None)
        assert contents(base) == before
        assert carried_out(words, out, tmp_path).files == known[name].files
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]


def test_a_run_that_is_killed_at_any_moment_ends_in_the_same_bits(tmp_path: Path) -> None:
    def recipe_in(folder: Path) -> dict[str, Any]:
        folder.mkdir()
        stages = runs.growing("copy")
        checkpoints = {"every_tokens": 256, "keep": 2}
        return runs.recipe(folder, stages=stages, checkpoint=checkpoints)

    whole = recipe_in(tmp_path / "whole")
    words, _ = runs.command(whole, tmp_path / "whole", "--quiet", by_program=True)
    begun = time.monotonic()
    done = run_hfgrow(*words[1:], timeout=300)
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - begun
    for number, moments in enumerate(rounds("runs that are killed")):
        folder = tmp_path / str(number)
        recipe = recipe_in(folder)
        again, _ = runs.command(recipe, folder, "--quiet", "--resume", by_program=True)
        for _ in range(moments.randint(1, 4)):
            kill_after(again[1:], moments.random() * seconds, folder)
        done = run_hfgrow(*again[1:], timeout=300)
        assert done.returncode == 0, done.stderr
        assert runs.losses(recipe) == runs.losses(whole)
        assert runs.weights(recipe) == runs.weights(whole)
        shutil.rmtree(folder)


def test_a_disk_of_any_size_takes_the_whole_output_or_nothing(
    base: Path,
    mount: Path,  # noqa: F811
) -> None:
    out = mount / "out"
    for moments in rounds("small disks"):
        mount_tmpfs(mount, f"size={moments.randint(4, 3000)}k,nr_inodes={moments.randint(3, 60)}")
        try:
            name = moments.choice(sorted(GROWTHS))
            words = [str(base) if word == "base" else word for word in GROWTHS[name]]
            done = run_hfgrow(*words, "--out", out)
            assert done.returncode in (0, 7), done.stderr
            if done.returncode:
                assert "a bug" not in done.stderr
                assert list(mount.iterdir()) == []
            else:
                assert call_hfgrow("check", out, "--weights").returncode == 0
        finally:
            subprocess.run(["umount", mount], check=True)


CALLS = (
    "GET /api/models/",
    "GET /api/whoami",
    "POST /api/repos/create",
    "POST /api/validate-yaml",
    "POST .*/preupload/",
    "POST .*/objects/batch",
    "POST .*/commit/",
    "PUT ",
    "HEAD ",
    "GET .*/resolve/",
    "GET /storage/",
    "/",
)


def spoil(hub: Hub, faults: random.Random) -> None:
    """Let something go wrong at some call."""
    where: dict[str, Any] = {"times": faults.choice((1, 2, 99)), "skip": faults.randint(0, 3)}
    kinds: list[dict[str, Any]] = [
        {"status": faults.choice((400, 401, 403, 404, 408, 409, 412, 416, 429, 500, 502, 503))},
        {"cut_after_bytes": faults.randint(0, 3000)},
        {"cut_upload_after_bytes": faults.randint(0, 3000)},
        {"drop": True},
        {"corrupt_at": faults.randint(0, 400)},
        {"delay_s": faults.random() / 10},
    ]
    hub.fault(faults.choice(CALLS), **faults.choice(kinds), **where)


def failure_of(work: Callable[[], object]) -> GrowthError | None:
    try:
        work()
    except GrowthError as error:
        return error
    return None


def test_a_hub_of_any_mood_is_told_in_a_line_and_the_next_try_goes_through(
    hub: Hub, tmp_path: Path
) -> None:
    grown = fill(tmp_path / "grown")
    for faults in rounds("faults of the Hub"):
        hub.store.repos.clear()
        hub.seed("bob/base", BASE)
        shutil.rmtree(tmp_path / "hub", ignore_errors=True)
        for _ in range(faults.randint(1, 3)):
            spoil(hub, faults)
        client = HubClient(ALICE, hub.url)
        for work in (lambda: fetch(hub), lambda: send(grown, check(client), client)):  # noqa: B023
            if (error := failure_of(work)) is not None:
                assert error.exit_code in (3, 4, 5, 6, 7, 9), error
                assert "\n" not in str(error)
        hub.clear_faults()
        folder = fetch(hub)
        assert {name: (folder / name).read_bytes() for name in BASE} == BASE
        send(grown, check(client, exist_ok=True), client)
        assert content(hub, TARGET).items() >= FILES.items()


LETTERS = [*"aZ09 .-_~$&;|<>*?[]{}()'\"\\!#%^@=+,:\t\n\r\x1b\x7f", "é", "e\u0301", "日", "\u202e"]
LETTERS += ["\u200b", "\U0001f600", "\udcff", "..", "--", "hf_"]


def test_a_folder_of_any_name_is_written_or_refused_in_a_line(base: Path, tmp_path: Path) -> None:
    whole = carried_out((*GROWTHS["stack"], "--out", "out"), tmp_path / "out", tmp_path)
    for names in rounds("odd folders"):
        place = tmp_path / "place"
        place.mkdir()
        name, other = (
            "".join(names.choices(LETTERS, k=names.choice((1, 3, 8, 90)))) for _ in range(2)
        )
        out, mine = place / name, place / other
        try:
            shutil.copytree(base, mine)
        except OSError:
            # Too long for a name, or the folder itself.
            mine = base
        before = sorted(os.listdir(place))
        done = run_hfgrow("stack", mine, "--g", "2", "--out", out, cwd=tmp_path)
        assert done.returncode in (0, 2, 7), done.stderr
        assert "Traceback" not in done.stderr
        assert "a bug" not in done.stderr
        if done.returncode == 0:
            weights = (out / "model.safetensors").read_bytes()
            assert weights == whole.files["model.safetensors"]
        else:
            assert sorted(os.listdir(place)) == before
        shutil.rmtree(place)
