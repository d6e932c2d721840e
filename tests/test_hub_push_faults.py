"""What can go wrong on the way of a push: its card, its branch, its answers, its rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfgrow.errors import HubConflictError, HubRefusedError, HubUnreachableError, ModelError
from hfgrow.hub.client import HubClient
from tests.hub import ALICE, ALICE_READ, BOB, Hub
from tests.hub.fixtures import IGNORE_CLIENT_WARNING
from tests.hub.pushes import FILES, TARGET, check, content, send, writes

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)


def test_a_commit_that_cannot_be_looked_at_is_told_and_not_made_again(
    hub: Hub, grown: Path
) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault("GET /api/models/alice/base-stack-g4/revision/", status=403, times=99, skip=0)
    with pytest.raises(HubRefusedError, match="is there, only the look at it failed") as caught:
        send(grown, check(client), client)
    assert hub.head(TARGET) in str(caught.value)
    hub.clear_faults()
    assert send(grown, check(client), client).already
    assert len(hub.commits(TARGET)) == 2


@pytest.mark.case("F-22")
def test_a_bad_card_costs_no_upload(hub: Hub, grown: Path) -> None:
    (grown / "README.md").write_bytes(b"---\nlicense: no such\ntags: 5\n---\n")
    client = HubClient(ALICE, hub.url)
    with pytest.raises(ModelError, match="license"):
        send(grown, check(client), client)
    assert ("model", TARGET) not in hub.store.repos


@pytest.mark.case("F-22")
@pytest.mark.parametrize("status", [413, 422])
def test_a_card_refused_by_status_is_the_cards_fault(hub: Hub, grown: Path, status: int) -> None:
    hub.fault("validate-yaml", status=status)
    client = HubClient(ALICE, hub.url)
    with pytest.raises(ModelError, match=f"{status}.*injected"):
        send(grown, check(client), client)


@pytest.mark.case("F-6")
def test_a_moved_branch_is_a_conflict_and_a_new_run_goes_through(hub: Hub, grown: Path) -> None:
    hub.seed(TARGET, {"hfgrow.json": b"old"})
    client = HubClient(ALICE, hub.url)
    target = check(client)
    theirs = hub.seed(TARGET, {"other.txt": b"theirs"})
    with pytest.raises(HubConflictError, match="changed") as caught:
        send(grown, target, client)
    assert "--create-pr" in caught.value.hint
    assert hub.head(TARGET) == theirs
    send(grown, check(client), client)
    assert content(hub, TARGET)["other.txt"] == b"theirs"


@pytest.mark.case("F-6")
def test_a_branch_that_moves_during_the_upload_is_a_conflict(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault(r"POST .*/commit/", status=412)
    with pytest.raises(HubConflictError, match="412"):
        send(grown, check(client), client)
    parent = check(client).head
    send(grown, check(client), client)
    assert hub.commits(TARGET)[0].parent == parent


@pytest.mark.case("F-17")
def test_a_lost_answer_to_the_commit_is_still_a_success(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(r"POST .*/commit/", drop=True)
    done = send(grown, check(client), client)
    assert fault.num_hits == 1
    assert done.commit == hub.head(TARGET)
    assert len(hub.commits(TARGET)) == 2


@pytest.mark.case("F-17")
def test_a_lost_answer_to_a_pull_request_is_still_a_success(hub: Hub, grown: Path) -> None:
    hub.seed("bob/other", {"a.txt": b"1"})
    client = HubClient(ALICE, hub.url)
    hub.fault(r"POST .*/commit/", drop=True)
    done = send(grown, check(client, "bob/other", create_pr=True), client)
    assert done.pull_request == f"{hub.url}/bob/other/discussions/1"
    assert set(hub.repo("bob/other").discussions) == {1}


@pytest.mark.case("F-16")
@pytest.mark.parametrize("step", ["preupload", "objects/batch", "lfs/", "/commit/"])
def test_an_interrupted_push_leaves_the_branch_and_a_new_run_finishes(
    hub: Hub, grown: Path, step: str
) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(f"(POST|PUT) .*{step}", status=500, times=50)
    with pytest.raises(HubUnreachableError, match="500"):
        send(grown, check(client), client)
    assert fault.num_hits > 0
    assert len(hub.commits(TARGET)) == 1
    hub.clear_faults()
    num_requests = len(hub.log)
    send(grown, check(client), client)
    assert content(hub, TARGET).items() >= FILES.items()
    uploads = [r.line for r in hub.log[num_requests:] if r.line.startswith("PUT")]
    assert len(uploads) == (0 if step == "/commit/" else 1)


@pytest.mark.case("F-16")
def test_a_cut_upload_is_sent_again(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault("PUT", cut_upload_after_bytes=1000)
    send(grown, check(client), client)
    assert content(hub, TARGET).items() >= FILES.items()


@pytest.mark.case("F-5")
def test_a_lost_answer_to_the_creation_is_not_a_conflict(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault("POST /api/repos/create", drop=True)
    send(grown, check(client), client)
    assert fault.num_hits == 1
    assert content(hub, TARGET).items() >= FILES.items()


@pytest.mark.case("F-5")
def test_a_repository_that_appears_meanwhile_is_a_conflict(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client)
    hub.seed(TARGET, {"theirs.txt": b"1"})
    with pytest.raises(HubConflictError, match="somebody"):
        send(grown, target, client)


@pytest.mark.case("F-20")
def test_a_repository_that_appears_public_gets_nothing_private(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client, private=True)
    hub.store.create("model", TARGET, author="alice")
    with pytest.raises(HubRefusedError, match="public"):
        send(grown, target, client)
    assert not [line for line in writes(hub) if "/commit/" in line or line.startswith("PUT")]


@pytest.mark.case("F-2")
@pytest.mark.parametrize("token", [BOB, ALICE_READ])
def test_a_token_that_lost_its_right_is_refused_with_the_reason(
    hub: Hub, grown: Path, token: str
) -> None:
    hub.seed(TARGET, {"hfgrow.json": b"{}"})
    target = check(HubClient(ALICE, hub.url))
    with pytest.raises(HubRefusedError, match="403") as caught:
        send(grown, target, HubClient(token, hub.url))
    assert token not in str(caught.value) + caught.value.hint


@pytest.mark.case("F-23")
def test_a_creation_that_answers_nonsense_is_unreachable(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault("POST /api/repos/create", status=200)
    with pytest.raises(HubUnreachableError, match="makes no sense"):
        send(grown, check(client), client)
    send(grown, check(client), client)
