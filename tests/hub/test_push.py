"""A push: one commit of the named files, and no second one.

What can go wrong on the way of a push: its card, its branch, its answers, its rights.

Before a push: everything that can be refused is refused before anything is sent.
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
    UsageError,
)
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.preflight import PushTarget, may_write_somewhere
from hfgrow.hub.pull import pull
from hfgrow.hub.push import Pushed, push
from hfgrow.hub.resolve import resolve
from tests.hub_server import ALICE, ALICE_READ, BOB, CAROL, Hub
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
    client, note = HubClient(ALICE, hub.url), "was made and is empty: run the same command again"
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
    said = "was made and whether the files arrived is not known: run the same command again"
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


@pytest.mark.case("F-1")
def test_without_a_token_preflight_says_how_to_log_in(hub: Hub) -> None:
    with pytest.raises(HubRefusedError, match="login") as caught:
        check(HubClient(None, hub.url))
    assert caught.value.hint == "hf auth login"
    assert hub.log == []


@pytest.mark.case("F-1")
def test_a_rejected_token_is_named_but_not_shown(hub: Hub) -> None:
    token = "hf_" + "NotAKnownToken".ljust(34, "0")
    with pytest.raises(HubRefusedError, match=r"rejected \(401\)") as caught:
        check(HubClient(token, hub.url))
    assert token not in str(caught.value)
    assert caught.value.hint == "hf auth login"


@pytest.mark.case("F-2")
def test_a_read_only_token_is_found_before_anything_else(hub: Hub) -> None:
    with pytest.raises(HubRefusedError, match="only read"):
        check(HubClient(ALICE_READ, hub.url))
    assert len(hub.log) == 1


@pytest.mark.case("F-2")
@pytest.mark.parametrize(
    ("rights", "expected"),
    [
        ({"global": [], "scoped": [{"permissions": ["repo.content.read"]}]}, False),
        ({"global": [], "scoped": []}, False),
        ({"global": [], "scoped": [{"permissions": ["repo.write"]}]}, True),
        ({"global": ["repo.write"]}, True),
        (None, True),
    ],
)
def test_a_fine_grained_token_needs_some_right_to_write(rights: object, expected: bool) -> None:
    assert may_write_somewhere({"role": "fineGrained", "fineGrained": rights}) is expected


@pytest.mark.parametrize("repo", ["bob/new", "acme/new"])
def test_a_foreign_namespace_is_refused(hub: Hub, repo: str) -> None:
    with pytest.raises(HubRefusedError, match="neither yours"):
        check(HubClient(ALICE, hub.url), repo)


def test_an_organisation_one_belongs_to_is_fine(hub: Hub, grown: Path) -> None:
    client = HubClient(CAROL, hub.url)
    send(grown, check(client, "acme/new"), client)
    assert content(hub, "acme/new").items() >= FILES.items()


@pytest.mark.case("D1", "D2", "D3")
@pytest.mark.parametrize(
    "repo", ["a b", "x.git", "a--b", "-x", "alice/-x", "n" * 97, "a/b/c", "\u212bx", "x\n", "$(id)"]
)
def test_an_impossible_name_is_refused_before_it_is_sent(hub: Hub, repo: str) -> None:
    with pytest.raises(UsageError):
        check(HubClient(ALICE, hub.url), repo)
    assert len(hub.log) == 1


@pytest.mark.case("F-19")
def test_the_base_itself_is_never_the_target(hub: Hub) -> None:
    base = ModelRef("alice/base", repo_id="alice/base")
    with pytest.raises(UsageError, match="base itself") as caught:
        check(HubClient(ALICE, hub.url), "Alice/Base", base=base, create_pr=True)
    assert TARGET in caught.value.hint


@pytest.mark.case("F-18")
def test_a_repository_of_other_origin_needs_exist_ok(hub: Hub, grown: Path) -> None:
    hub.seed("alice/mine", {"model.bin": b"1", "README.md": b"# hi"})
    client = HubClient(ALICE, hub.url)
    with pytest.raises(HubConflictError, match=r"no hfgrow\.json"):
        check(client, "mine")
    send(grown, check(client, "mine", exist_ok=True), client)
    assert content(hub, "alice/mine")["model.bin"] == b"1"


@pytest.mark.case("F-20")
@pytest.mark.parametrize(
    ("flags", "private", "expected"),
    [
        ({}, None, False),
        ({"private": True}, None, True),
        ({"gated": True}, None, True),
        ({"private": True}, False, False),
        ({}, True, True),
    ],
)
def test_a_new_repository_is_as_private_as_the_base(
    hub: Hub, grown: Path, flags: dict[str, bool], private: bool | None, expected: bool
) -> None:
    base = ModelRef("bob/base", repo_id="bob/base", **flags)  # type: ignore[arg-type]
    client = HubClient(ALICE, hub.url)
    target = check(client, base=base, private=private)
    assert target.private is expected
    send(grown, target, client)
    assert hub.repo(TARGET).private is expected


@pytest.mark.case("F-20")
def test_a_public_repository_does_not_take_what_grew_from_a_private_base(hub: Hub) -> None:
    hub.seed("alice/old", {"hfgrow.json": b"{}"})
    base = ModelRef("alice/secret", repo_id="alice/secret", private=True)
    client = HubClient(ALICE, hub.url)
    with pytest.raises(UsageError, match="is public"):
        check(client, "old", base=base)
    assert check(client, "old", base=base, private=False).private is False


def test_a_wish_that_contradicts_the_repository_is_not_ignored(hub: Hub) -> None:
    hub.seed("alice/old", {"hfgrow.json": b"{}"})
    with pytest.raises(UsageError, match="does not change that"):
        check(HubClient(ALICE, hub.url), "old", private=True)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, HubRefusedError),
        (403, HubRefusedError),
        (404, HubRefusedError),
        (409, HubConflictError),
        (412, HubConflictError),
        (429, HubUnreachableError),
        (500, HubUnreachableError),
        (503, HubUnreachableError),
    ],
)
def test_every_status_becomes_its_exit_code(
    hub: Hub, status: int, error: type[GrowthError]
) -> None:
    hub.fault("whoami", status=status, times=99)
    with pytest.raises(error, match=str(status)):
        check(HubClient(ALICE, hub.url))


@pytest.mark.parametrize("answer", [{}, {"name": None}, [], "alice"], ids=str)
def test_an_answer_that_names_nobody_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    client = HubClient(ALICE, "http://127.0.0.1:9")
    monkeypatch.setattr(client.api, "whoami", lambda: answer)
    with pytest.raises(HubUnreachableError, match="names nobody"):
        check(client)


@pytest.mark.parametrize(
    "more",
    [
        {"auth": ["write"]},
        {"auth": {"accessToken": "write"}},
        {"orgs": ["acme"]},
        {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": ["x"]}}}},
    ],
    ids=str,
)
def test_an_answer_about_the_caller_that_makes_no_sense_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    client = HubClient(ALICE, "http://127.0.0.1:9")
    monkeypatch.setattr(client.api, "whoami", lambda: {"name": "alice", **more})
    with pytest.raises(HubUnreachableError, match="its answer makes no sense"):
        check(client)


@pytest.mark.case("F-9")
def test_a_busy_server_is_asked_again(hub: Hub) -> None:
    fault = hub.fault("GET", status=503, times=2)
    assert check(HubClient(ALICE, hub.url)).exists is False
    assert fault.num_hits == 2


@pytest.mark.case("F-7")
def test_a_long_rate_limit_is_told_at_once(hub: Hub) -> None:
    fault = hub.fault("whoami", status=429, headers={"RateLimit": '"api";r=0;t=299'}, times=9)
    with pytest.raises(HubUnreachableError) as caught:
        check(HubClient(ALICE, hub.url))
    assert caught.value.hint == "try again in 300 s"
    assert fault.num_hits == 1
