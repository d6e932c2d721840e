"""Preflight and push, by the real client, against a Hub on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hfgrow.errors import (
    GrowthError,
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    ModelError,
    UsageError,
)
from hfgrow.hub.client import HubClient
from hfgrow.hub.preflight import PushTarget, may_write_somewhere, preflight
from hfgrow.hub.push import Pushed, push
from hfgrow.hub.resolve import ModelRef
from tests.hub import ALICE, ALICE_READ, BOB, CAROL, Hub
from tests.hub.fixtures import hub_environment

BASE = ModelRef("bob/base", repo_id="bob/base")
CARD = b"---\nlicense: apache-2.0\ntags: [hfgrow]\n---\n# Grown\n"
FILES = {
    "README.md": CARD,
    "config.json": b'{"model_type": "llama"}',
    "hfgrow.json": b"{}",
    "model.safetensors": bytes(range(256)) * 64,
}
MESSAGE = "Grow bob/base by stack"

# The client streams LFS uploads in a way that its own HTTP library calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(empty_hub: Hub) -> Hub:
    return empty_hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "grown"
    path.mkdir()
    return fill(path)


def fill(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def check(
    client: HubClient,
    repo: str | None = None,
    *,
    base: ModelRef = BASE,
    private: bool | None = None,
    exist_ok: bool = False,
    create_pr: bool = False,
) -> PushTarget:
    return preflight(
        base,
        repo,
        "base-stack-g4",
        client,
        private=private,
        exist_ok=exist_ok,
        create_pr=create_pr,
    )


def send(folder: Path, target: PushTarget, client: HubClient) -> Pushed:
    return push(folder, sorted(FILES), target, client, message=MESSAGE)


def content(hub: Hub, repo_id: str, revision: str = "main") -> dict[str, bytes]:
    found = hub.files(repo_id, revision)
    return {n: d.read_bytes() if isinstance(d, Path) else d for n, d in found.items()}


def writes(hub: Hub) -> list[str]:
    return [r.line for r in hub.log if not r.line.startswith(("GET", "HEAD"))]


# ---- the happy path


def test_a_push_makes_the_repository_and_one_commit(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client)
    assert target == PushTarget("alice/base-stack-g4", False, False, None, False)
    assert writes(hub) == []
    done = send(folder, target, client)
    assert done == Pushed(f"{hub.url}/alice/base-stack-g4", hub.head("alice/base-stack-g4"))
    assert [c.title for c in hub.commits("alice/base-stack-g4")] == [MESSAGE, "initial commit"]
    assert content(hub, "alice/base-stack-g4").items() >= FILES.items()


def test_a_commit_that_cannot_be_looked_at_is_told_and_not_made_again(
    hub: Hub, folder: Path
) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault("GET /api/models/alice/base-stack-g4/revision/", status=403, times=99, skip=0)
    with pytest.raises(HubRefusedError, match="is there, only the look at it failed") as caught:
        send(folder, check(client), client)
    assert hub.head("alice/base-stack-g4") in str(caught.value)
    hub.clear_faults()
    assert send(folder, check(client), client).already
    assert len(hub.commits("alice/base-stack-g4")) == 2


@pytest.mark.case("F-17")
def test_a_second_push_of_the_same_files_makes_no_commit(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    first = send(folder, check(client), client)
    target = check(client)
    assert target.exists
    assert target.head == first.commit
    num_requests = len(hub.log)
    again = send(folder, target, client)
    assert again == Pushed(first.url, first.commit, already=True)
    assert [r.line.split("?")[0] for r in hub.log[num_requests:]] == [
        "POST /api/validate-yaml",
        "GET /api/models/alice/base-stack-g4",
    ]


@pytest.mark.case("F-18")
def test_a_changed_file_makes_one_more_commit_and_nothing_is_deleted(
    hub: Hub, folder: Path
) -> None:
    client = HubClient(ALICE, hub.url)
    send(folder, check(client), client)
    hub.seed("alice/base-stack-g4", {"notes.txt": b"mine"})
    (folder / "config.json").write_bytes(b"{}")
    done = send(folder, check(client), client)
    assert not done.already
    now = content(hub, "alice/base-stack-g4")
    assert now["config.json"] == b"{}"
    assert now["notes.txt"] == b"mine"


def test_a_pull_request_leaves_the_main_branch_and_is_not_opened_twice(
    hub: Hub, folder: Path
) -> None:
    before = hub.seed("bob/other", {"a.txt": b"1"})
    client = HubClient(ALICE, hub.url)
    target = check(client, "bob/other", create_pr=True)
    done = send(folder, target, client)
    assert done.pull_request == f"{hub.url}/bob/other/discussions/1"
    assert hub.head("bob/other") == before
    assert content(hub, "bob/other", "refs/pr/1").items() >= FILES.items()
    again = send(folder, check(client, "bob/other", create_pr=True), client)
    assert again.already
    assert again.pull_request == done.pull_request
    assert set(hub.repo("bob/other").discussions) == {1}


def test_multipart_uploads_arrive_whole(hub: Hub, folder: Path) -> None:
    hub.knobs.part_bytes = 5000
    client = HubClient(ALICE, hub.url)
    send(folder, check(client), client)
    assert content(hub, "alice/base-stack-g4").items() >= FILES.items()


# ---- preflight: everything that can refuse


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


def test_an_organisation_one_belongs_to_is_fine(hub: Hub, folder: Path) -> None:
    client = HubClient(CAROL, hub.url)
    send(folder, check(client, "acme/new"), client)
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
    assert "alice/base-stack-g4" in caught.value.hint


@pytest.mark.case("F-18")
def test_a_repository_of_other_origin_needs_exist_ok(hub: Hub, folder: Path) -> None:
    hub.seed("alice/mine", {"model.bin": b"1", "README.md": b"# hi"})
    client = HubClient(ALICE, hub.url)
    with pytest.raises(HubConflictError, match=r"no hfgrow\.json"):
        check(client, "mine")
    send(folder, check(client, "mine", exist_ok=True), client)
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
    hub: Hub, folder: Path, flags: dict[str, bool], private: bool | None, expected: bool
) -> None:
    base = ModelRef("bob/base", repo_id="bob/base", **flags)  # type: ignore[arg-type]
    client = HubClient(ALICE, hub.url)
    target = check(client, base=base, private=private)
    assert target.private is expected
    send(folder, target, client)
    assert hub.repo("alice/base-stack-g4").private is expected


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


# ---- push: what can go wrong on the way


@pytest.mark.case("F-22")
def test_a_bad_card_costs_no_upload(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_bytes(b"---\nlicense: no such\ntags: 5\n---\n")
    client = HubClient(ALICE, hub.url)
    with pytest.raises(ModelError, match="license"):
        send(folder, check(client), client)
    assert ("model", "alice/base-stack-g4") not in hub.store.repos


@pytest.mark.case("F-22")
@pytest.mark.parametrize("status", [413, 422])
def test_a_card_refused_by_status_is_the_cards_fault(hub: Hub, folder: Path, status: int) -> None:
    hub.fault("validate-yaml", status=status)
    client = HubClient(ALICE, hub.url)
    with pytest.raises(ModelError, match=f"{status}.*injected"):
        send(folder, check(client), client)


def test_a_card_without_metadata_is_pushed_with_a_note(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_bytes(b"# Grown\n")
    client = HubClient(ALICE, hub.url)
    done = send(folder, check(client), client)
    assert done.notes == ("README.md: empty or missing yaml metadata in repo card",)


@pytest.mark.case("F-6")
def test_a_moved_branch_is_a_conflict_and_a_new_run_goes_through(hub: Hub, folder: Path) -> None:
    hub.seed("alice/base-stack-g4", {"hfgrow.json": b"old"})
    client = HubClient(ALICE, hub.url)
    target = check(client)
    theirs = hub.seed("alice/base-stack-g4", {"other.txt": b"theirs"})
    with pytest.raises(HubConflictError, match="changed") as caught:
        send(folder, target, client)
    assert "--create-pr" in caught.value.hint
    assert hub.head("alice/base-stack-g4") == theirs
    send(folder, check(client), client)
    assert content(hub, "alice/base-stack-g4")["other.txt"] == b"theirs"


@pytest.mark.case("F-6")
def test_a_branch_that_moves_during_the_upload_is_a_conflict(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault(r"POST .*/commit/", status=412)
    with pytest.raises(HubConflictError, match="412"):
        send(folder, check(client), client)
    parent = check(client).head
    send(folder, check(client), client)
    assert hub.commits("alice/base-stack-g4")[0].parent == parent


@pytest.mark.case("F-17")
def test_a_lost_answer_to_the_commit_is_still_a_success(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(r"POST .*/commit/", drop=True)
    done = send(folder, check(client), client)
    assert fault.num_hits == 1
    assert done.commit == hub.head("alice/base-stack-g4")
    assert len(hub.commits("alice/base-stack-g4")) == 2


@pytest.mark.case("F-17")
def test_a_lost_answer_to_a_pull_request_is_still_a_success(hub: Hub, folder: Path) -> None:
    hub.seed("bob/other", {"a.txt": b"1"})
    client = HubClient(ALICE, hub.url)
    hub.fault(r"POST .*/commit/", drop=True)
    done = send(folder, check(client, "bob/other", create_pr=True), client)
    assert done.pull_request == f"{hub.url}/bob/other/discussions/1"
    assert set(hub.repo("bob/other").discussions) == {1}


@pytest.mark.case("F-16")
@pytest.mark.parametrize("step", ["preupload", "objects/batch", "lfs/", "/commit/"])
def test_an_interrupted_push_leaves_the_branch_and_a_new_run_finishes(
    hub: Hub, folder: Path, step: str
) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(f"(POST|PUT) .*{step}", status=500, times=50)
    with pytest.raises(HubUnreachableError, match="500"):
        send(folder, check(client), client)
    assert fault.num_hits > 0
    assert len(hub.commits("alice/base-stack-g4")) == 1
    hub.clear_faults()
    num_requests = len(hub.log)
    send(folder, check(client), client)
    assert content(hub, "alice/base-stack-g4").items() >= FILES.items()
    uploads = [r.line for r in hub.log[num_requests:] if r.line.startswith("PUT")]
    assert len(uploads) == (0 if step == "/commit/" else 1)


@pytest.mark.case("F-16")
def test_a_cut_upload_is_sent_again(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault("PUT", cut_upload_after_bytes=1000)
    send(folder, check(client), client)
    assert content(hub, "alice/base-stack-g4").items() >= FILES.items()


@pytest.mark.case("F-5")
def test_a_lost_answer_to_the_creation_is_not_a_conflict(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault("POST /api/repos/create", drop=True)
    send(folder, check(client), client)
    assert fault.num_hits == 1
    assert content(hub, "alice/base-stack-g4").items() >= FILES.items()


@pytest.mark.case("F-5")
def test_a_repository_that_appears_meanwhile_is_a_conflict(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client)
    hub.seed("alice/base-stack-g4", {"theirs.txt": b"1"})
    with pytest.raises(HubConflictError, match="somebody"):
        send(folder, target, client)


@pytest.mark.case("F-20")
def test_a_repository_that_appears_public_gets_nothing_private(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client, private=True)
    hub.store.create("model", "alice/base-stack-g4", author="alice")
    with pytest.raises(HubRefusedError, match="public"):
        send(folder, target, client)
    assert not [line for line in writes(hub) if "/commit/" in line or line.startswith("PUT")]


@pytest.mark.case("F-2")
@pytest.mark.parametrize("token", [BOB, ALICE_READ])
def test_a_token_that_lost_its_right_is_refused_with_the_reason(
    hub: Hub, folder: Path, token: str
) -> None:
    hub.seed("alice/base-stack-g4", {"hfgrow.json": b"{}"})
    target = check(HubClient(ALICE, hub.url))
    with pytest.raises(HubRefusedError, match="403") as caught:
        send(folder, target, HubClient(token, hub.url))
    assert token not in str(caught.value) + caught.value.hint


@pytest.mark.case("F-23")
def test_a_creation_that_answers_nonsense_is_unreachable(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    hub.fault("POST /api/repos/create", status=200)
    with pytest.raises(HubUnreachableError, match="makes no sense"):
        send(folder, check(client), client)
    send(folder, check(client), client)


@pytest.mark.case("B14")
def test_only_plain_files_of_the_folder_are_pushed(hub: Hub, folder: Path) -> None:
    client = HubClient(ALICE, hub.url)
    target = check(client)
    secret = folder.parent / "secret"
    secret.write_bytes(b"hf_secret")
    (folder / "link.json").symlink_to(secret)
    (folder / "sub").mkdir()
    for name in ("link.json", "../secret", str(secret), "sub", "absent", "", ".git", "sub/../x"):
        with pytest.raises(ModelError):
            push(folder, ["config.json", name], target, client, message=MESSAGE)
    with pytest.raises(ModelError, match="nothing to push"):
        push(folder, [], target, client, message=MESSAGE)
    assert writes(hub) == []


@pytest.mark.case("B14")
def test_nothing_but_the_named_files_is_sent(hub: Hub, folder: Path) -> None:
    (folder / ".env").write_bytes(b"TOKEN=1")
    (folder / ".tmpAbC").write_bytes(b"leftover")
    client = HubClient(ALICE, hub.url)
    send(folder, check(client), client)
    assert set(content(hub, "alice/base-stack-g4")) == {*FILES, ".gitattributes"}


# ---- xet, in processes of their own: hf_xet keeps its storage to itself

PUSH = """
import sys
from pathlib import Path
from hfgrow.errors import GrowthError
from hfgrow.hub.client import HubClient
from hfgrow.hub.preflight import preflight
from hfgrow.hub.pull import pull
from hfgrow.hub.push import push
from hfgrow.hub.resolve import ModelRef, resolve
client, folder = HubClient(), Path(sys.argv[1])
base = ModelRef("bob/base", repo_id="bob/base")
try:
    target = preflight(base, "x", "", client, private=None, exist_ok=False, create_pr=False)
    done = push(folder, sorted(p.name for p in folder.iterdir()), target, client, message="m")
    pulled = pull(resolve("alice/x", client), client)
    name = "model.safetensors"
    print(done.already, (pulled / name).read_bytes() == (folder / name).read_bytes())
except GrowthError as error:
    print(error.exit_code, error, "|", error.hint)
"""


def push_by_xet(hub: Hub, folder: Path, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder)],
        env=hub_environment(hub, home, xet=True),
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ALICE not in done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.case("F-24")
@pytest.mark.xet
@pytest.mark.xdist_group("xet")
def test_a_push_by_xet_arrives_and_is_not_repeated(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("hf_xet")
    with Hub(xet=tmp_path / "xet-storage") as xet_hub:
        assert push_by_xet(xet_hub, folder, tmp_path / "hf") == "False True"
        assert push_by_xet(xet_hub, folder, tmp_path / "hf") == "True True"
        assert len(xet_hub.commits("alice/x")) == 2
        assert not xet_hub.lines("objects/batch")


@pytest.mark.case("F-24")
@pytest.mark.xet
@pytest.mark.xdist_group("xet")
def test_a_hub_without_xet_names_the_way_around_it(hub: Hub, tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("hf_xet")
    told = push_by_xet(hub, folder, tmp_path / "hf")
    assert told.startswith("5 pushing to alice/x: the Xet storage failed")
    assert "HF_HUB_DISABLE_XET=1" in told


@pytest.mark.xet
@pytest.mark.xdist_group("xet")
@pytest.mark.case("F-17", "F-24")
def test_a_lost_answer_to_a_commit_by_xet_makes_no_second_one(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("hf_xet")
    with Hub(xet=tmp_path / "xet-storage") as xet_hub:
        fault = xet_hub.fault(r"POST .*/commit/", drop=True)
        assert push_by_xet(xet_hub, folder, tmp_path / "hf") == "False True"
        assert fault.num_hits == 1
        assert len(xet_hub.commits("alice/x")) == 2
        assert len(xet_hub.lines("/commit/")) == 1
