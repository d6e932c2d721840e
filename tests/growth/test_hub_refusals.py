"""A growth through a Hub that cannot be: refused before any work, or nothing lost."""

from pathlib import Path

import pytest

from tests.hub_server import ALICE, ALICE_READ, Hub
from tests.hub_server.machine import BASE, Machine

pytestmark = pytest.mark.xdist_group("hub_growth_refusals")


@pytest.mark.case("I3")
def test_a_dry_run_writes_nothing_here_or_there(hub_with_base: Hub, tmp_path: Path) -> None:
    machine = Machine(hub_with_base, tmp_path)
    already = len(hub_with_base.log)
    finished = machine.hfgrow("stack", BASE, "--g", "2", "--push", "--dry-run")
    assert finished.returncode == 0, finished.stderr
    assert "4 -> 8 layers" in finished.stdout
    assert machine.left_behind() == []
    assert not [r for r in hub_with_base.log[already:] if r.line.startswith("POST /api/repos")]


def test_a_dry_run_of_a_push_needs_no_login(hub_with_base: Hub, tmp_path: Path) -> None:
    machine = Machine(hub_with_base, tmp_path)
    words = ("stack", BASE, "--g", "2", "--push", "--dry-run", "--out", "grown")
    finished = machine.hfgrow(*words, token=None)
    assert finished.returncode == 0, finished.stderr
    assert "4 -> 8 layers" in finished.stdout
    said = (
        "Note: the Hub was not asked whether you may push there, nor what is there: nobody is log"
    )
    assert said in finished.stderr
    assert "push to         YOU/grown (visibility unknown)" in finished.stdout


@pytest.mark.case("F-1", "F-2", "F-4", "F-19")
@pytest.mark.parametrize(
    ("token", "words", "code", "message"),
    [
        (None, ["--push"], 4, "no token"),
        (ALICE_READ, ["--push"], 4, "may only read"),
        (ALICE, ["--push", "--repo", BASE], 2, "the base itself"),
        (ALICE, ["--push", "--repo", "bob/tiny"], 4, "neither yours"),
        (ALICE, ["--revision", "nosuch"], 4, "nosuch"),
    ],
    ids=["no-token", "read-token", "onto-the-base", "foreign-namespace", "no-such-revision"],
)
def test_a_push_that_cannot_succeed_is_refused_before_any_work(
    token: str | None,
    words: list[str],
    code: int,
    message: str,
    hub_with_base: Hub,
    tmp_path: Path,
) -> None:
    machine = Machine(hub_with_base, tmp_path)
    already = len(hub_with_base.log)
    finished = machine.hfgrow("stack", BASE, "--g", "2", *words, token=token)
    assert finished.returncode == code, finished.stderr
    assert message in finished.stderr
    assert machine.left_behind() == []
    assert not [r for r in hub_with_base.log[already:] if ".safetensors" in r.line]


@pytest.mark.case("F-6")
def test_a_remote_that_moved_meanwhile_is_a_conflict_and_the_local_model_stays(
    hub_with_base: Hub, tmp_path: Path
) -> None:
    machine = Machine(hub_with_base, tmp_path)
    hub_with_base.fault("POST /api/models/alice/moved/commit/", status=412, times=9)
    words = ["stack", BASE, "--g", "2", "--push", "--repo", "alice/moved", "--no-verify"]
    finished = machine.hfgrow(*words)
    hub_with_base.clear_faults()
    assert finished.returncode == 6, finished.stderr
    assert finished.stderr.endswith(
        "Hint: push again, or add --create-pr; the grown model is complete, and goes there by "
        "hfgrow push tiny-stack-g2 alice/moved\n"
    )
    assert machine.left_behind() == ["tiny-stack-g2"]
    assert machine.hfgrow("push", "tiny-stack-g2", "alice/moved").returncode == 0


@pytest.mark.case("F-11")
def test_corrupted_weights_are_found_by_their_checksum(hub_with_base: Hub, tmp_path: Path) -> None:
    machine = Machine(hub_with_base, tmp_path)
    fault = hub_with_base.fault("GET /storage/", corrupt_at=100)
    finished = machine.hfgrow("stack", BASE, "--g", "2")
    hub_with_base.clear_faults()
    assert fault.num_hits == 1
    assert finished.returncode == 9, finished.stderr
    assert "model-0" in finished.stderr
    assert machine.left_behind() == []
    assert machine.hfgrow("stack", BASE, "--g", "2").returncode == 0


def test_a_push_beside_other_shards_is_refused(hub_with_base: Hub, tmp_path: Path) -> None:
    machine = Machine(hub_with_base, tmp_path)
    push = ["--push", "--repo", "alice/cut", "--no-verify", "--overwrite"]
    size = ["--max-shard-size", "60KB"]
    assert machine.hfgrow("stack", BASE, "--g", "2", *push, *size).returncode == 0
    before = hub_with_base.head("alice/cut")
    finished = machine.hfgrow("stack", BASE, "--g", "2", *push)
    assert finished.returncode == 6, finished.stderr
    assert "model-00001" in finished.stderr
    assert hub_with_base.head("alice/cut") == before
