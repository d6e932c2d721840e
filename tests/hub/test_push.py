"""A push: one commit of the named files, and no second one.

What can go wrong on the way of a push: its card, its branch, its answers, its rights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cli.terminal import Console
from hfgrow.checkpoint.files import side_files_of
from hfgrow.errors import (
    GrowthError,
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    ModelError,
)
from hfgrow.hub.client import HubClient
from hfgrow.hub.preflight import PushTarget
from hfgrow.hub.pull import pull
from hfgrow.hub.push import Pushed, push
from hfgrow.hub.resolve import resolve
from tests.hub_server import ALICE, ALICE_READ, BOB, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING
from tests.hub_server.pushes import FILES, MESSAGE, TARGET, check, content, send, writes

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


def test_a_hash_that_is_known_is_not_taken_again(hub: Hub, grown: Path) -> None:
    """The Hub's client believes it, so that a wrong one is refused by the storage alone."""
    client, name = HubClient(ALICE, hub.url), "model.safetensors"
    right = hashlib.sha256(FILES[name]).hexdigest()
    for digest in ("0" * 64, right):
        target = check(client)
        known = {name: digest}
        words = (grown, sorted(FILES), target, client)
        if digest == right:
            done = push(*words, message=MESSAGE, hashes=known)
            assert done.commit == hub.head(TARGET)
        else:
            with pytest.raises(GrowthError, match="another SHA-256"):
                push(*words, message=MESSAGE, hashes=known)
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


def test_a_folder_of_chat_templates_is_pushed_and_comes_back(hub: Hub, grown: Path) -> None:
    template = "additional_chat_templates/rag.jinja"
    (grown / template).parent.mkdir()
    (grown / template).write_bytes(b"{{ messages }}")
    client = HubClient(ALICE, hub.url)
    push(grown, [*FILES, template], check(client), client, message=MESSAGE)
    assert content(hub, TARGET)[template] == b"{{ messages }}"
    folder = pull(resolve(TARGET, client), client)
    assert (folder / template).read_bytes() == b"{{ messages }}"
    assert template in side_files_of(folder)


@pytest.mark.case("B14")
def test_a_linked_folder_of_chat_templates_is_not_pushed(hub: Hub, grown: Path) -> None:
    (grown.parent / "secret").mkdir()
    (grown.parent / "secret" / "key.jinja").write_bytes(b"hf_secret")
    (grown / "additional_chat_templates").symlink_to(grown.parent / "secret")
    client = HubClient(ALICE, hub.url)
    with pytest.raises(ModelError, match="is a link"):
        push(
            grown,
            ["additional_chat_templates/key.jinja"],
            check(client),
            client,
            message=MESSAGE,
        )
    assert side_files_of(grown) == []


@pytest.mark.case("B14")
def test_nothing_but_the_named_files_is_sent(hub: Hub, grown: Path) -> None:
    (grown / ".env").write_bytes(b"TOKEN=1")
    (grown / ".tmpAbC").write_bytes(b"leftover")
    client = HubClient(ALICE, hub.url)
    send(grown, check(client), client)
    assert set(content(hub, TARGET)) == {*FILES, ".gitattributes"}


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
    assert "create_pr" in caught.value.hint
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


def test_a_repository_that_a_failed_push_left_empty_is_told(
    hub: Hub, grown: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client, note = HubClient(ALICE, hub.url), "was made and is empty: push again"
    hub.fault("POST .*/commit/", status=403, times=50)
    with pytest.raises(HubRefusedError, match="403"):
        push(grown, sorted(FILES), check(client), client, Console(), message=MESSAGE)
    assert f"Note: {hub.url}/{TARGET} {note}\n" in capfd.readouterr().err
    with pytest.raises(HubRefusedError, match="403"):
        push(grown, sorted(FILES), check(client), client, Console(), message=MESSAGE)
    assert note not in capfd.readouterr().err


def test_a_new_repository_that_cannot_be_looked_at_is_not_called_empty(
    hub: Hub, grown: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client)
    hub.fault("POST .*/commit/", status=500, times=50)
    # Looked up once to build on it; the look after the failure finds nobody.
    hub.fault(f"GET .*/api/models/{TARGET}", status=500, times=50, skip=1)
    with pytest.raises(HubUnreachableError, match="500"):
        push(grown, sorted(FILES), target, client, Console(), message=MESSAGE)
    said = "was made and whether the files arrived is not known: push again"
    assert f"Note: {hub.url}/{TARGET} {said}\n" in capfd.readouterr().err


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
