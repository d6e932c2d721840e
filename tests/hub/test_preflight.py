"""Before a push: everything that can be refused is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfgrow.errors import (
    GrowthError,
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    UsageError,
)
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import ModelRef
from hfgrow.hub.preflight import may_write_somewhere
from tests.hub_server import ALICE, ALICE_READ, CAROL, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING
from tests.hub_server.pushes import FILES, TARGET, check, content, send

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)


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
