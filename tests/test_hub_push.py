"""A push: one commit of the named files, and no second one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfgrow.errors import ModelError
from hfgrow.hub.client import HubClient
from hfgrow.hub.preflight import PushTarget
from hfgrow.hub.push import Pushed, push
from tests.hub import ALICE, Hub
from tests.hub.fixtures import IGNORE_CLIENT_WARNING
from tests.hub.pushes import FILES, MESSAGE, TARGET, check, content, send, writes

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)


def test_a_push_makes_the_repository_and_one_commit(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client)
    assert target == PushTarget(TARGET, False, False, None, False)
    assert writes(hub) == []
    done = send(grown, target, client)
    assert done == Pushed(f"{hub.url}/alice/base-stack-g4", hub.head(TARGET))
    assert [c.title for c in hub.commits(TARGET)] == [MESSAGE, "initial commit"]
    assert content(hub, TARGET).items() >= FILES.items()


@pytest.mark.case("F-17")
def test_a_second_push_of_the_same_files_makes_no_commit(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    first = send(grown, check(client), client)
    target = check(client)
    assert target.exists
    assert target.head == first.commit
    num_requests = len(hub.log)
    again = send(grown, target, client)
    assert again == Pushed(first.url, first.commit, already=True)
    assert [r.line.split("?")[0] for r in hub.log[num_requests:]] == [
        "POST /api/validate-yaml",
        "GET /api/models/alice/base-stack-g4",
    ]


@pytest.mark.case("F-18")
def test_a_changed_file_makes_one_more_commit_and_nothing_is_deleted(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    send(grown, check(client), client)
    hub.seed(TARGET, {"notes.txt": b"mine"})
    (grown / "config.json").write_bytes(b"{}")
    done = send(grown, check(client), client)
    assert not done.already
    now = content(hub, TARGET)
    assert now["config.json"] == b"{}"
    assert now["notes.txt"] == b"mine"


def test_a_pull_request_leaves_the_main_branch_and_is_not_opened_twice(
    hub: Hub, grown: Path
) -> None:
    before = hub.seed("bob/other", {"a.txt": b"1"})
    client = HubClient(ALICE, hub.url)
    target = check(client, "bob/other", create_pr=True)
    done = send(grown, target, client)
    assert done.pull_request == f"{hub.url}/bob/other/discussions/1"
    assert hub.head("bob/other") == before
    assert content(hub, "bob/other", "refs/pr/1").items() >= FILES.items()
    again = send(grown, check(client, "bob/other", create_pr=True), client)
    assert again.already
    assert again.pull_request == done.pull_request
    assert set(hub.repo("bob/other").discussions) == {1}


def test_multipart_uploads_arrive_whole(hub: Hub, grown: Path) -> None:
    hub.knobs.part_bytes = 5000
    client = HubClient(ALICE, hub.url)
    send(grown, check(client), client)
    assert content(hub, TARGET).items() >= FILES.items()


def test_a_card_without_metadata_is_pushed_with_a_note(hub: Hub, grown: Path) -> None:
    (grown / "README.md").write_bytes(b"# Grown\n")
    client = HubClient(ALICE, hub.url)
    done = send(grown, check(client), client)
    assert done.notes == ("README.md: empty or missing yaml metadata in repo card",)


@pytest.mark.case("B14")
def test_only_plain_files_of_the_folder_are_pushed(hub: Hub, grown: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client)
    secret = grown.parent / "secret"
    secret.write_bytes(b"hf_secret")
    (grown / "link.json").symlink_to(secret)
    (grown / "sub").mkdir()
    for name in ("link.json", "../secret", str(secret), "sub", "absent", "", ".git", "sub/../x"):
        with pytest.raises(ModelError):
            push(grown, ["config.json", name], target, client, message=MESSAGE)
    with pytest.raises(ModelError, match="nothing to push"):
        push(grown, [], target, client, message=MESSAGE)
    assert writes(hub) == []


@pytest.mark.case("B14")
def test_nothing_but_the_named_files_is_sent(hub: Hub, grown: Path) -> None:
    (grown / ".env").write_bytes(b"TOKEN=1")
    (grown / ".tmpAbC").write_bytes(b"leftover")
    client = HubClient(ALICE, hub.url)
    send(grown, check(client), client)
    assert set(content(hub, TARGET)) == {*FILES, ".gitattributes"}
