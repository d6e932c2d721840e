"""From a name to a commit: pinning, candidates, and every answer that is none."""

from __future__ import annotations

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
from hfgrow.hub.pull import RemoteFiles
from hfgrow.hub.resolve import parse, pin, resolve
from tests.hub import ALICE, BOB, Hub
from tests.hub.models import FILES, WEIGHTS

pytestmark = pytest.mark.usefixtures("home")


def test_a_pinned_model_knows_its_commit_flags_and_files(hub: Hub) -> None:
    sha = hub.seed("bob/base", FILES, gated=True)
    ref = pin(parse("bob/base"), HubClient(ALICE, hub.url))
    assert ref.revision == sha
    assert (ref.private, ref.gated) == (False, True)
    assert set(ref.files) == {"config.json", "model.safetensors"}
    assert ref.files["model.safetensors"].nbytes == len(WEIGHTS)
    assert ref.files["model.safetensors"].sha256 is not None
    assert ref.files["config.json"].sha256 is None
    assert len(hub.log) == 1


def test_a_branch_a_tag_and_an_older_commit_can_be_pinned(hub: Hub) -> None:
    first = hub.seed("bob/base", FILES)
    hub.repo("bob/base").refs["refs/tags/v1"] = first
    second = hub.seed("bob/base", {"config.json": b"[]"})
    client = HubClient(ALICE, hub.url)
    assert resolve("bob/base", client, "main").revision == second
    assert resolve("bob/base", client, "v1").revision == first
    assert resolve("bob/base", client, first).revision == first


@pytest.mark.case("F-1", "F-4")
def test_a_private_model_is_seen_by_its_owner_only(hub: Hub) -> None:
    hub.seed("bob/secret", FILES, private=True)
    assert resolve("bob/secret", HubClient(BOB, hub.url)).private
    with pytest.raises(HubRefusedError, match=r"no such model.*\(404\)"):
        resolve("bob/secret", HubClient(ALICE, hub.url))
    with pytest.raises(HubRefusedError, match=r"private \(401\)") as caught:
        resolve("bob/secret", HubClient(None, hub.url))
    assert "hf auth login" in caught.value.hint


@pytest.mark.case("F-4")
def test_what_is_missing_is_said_apart(hub: Hub) -> None:
    hub.seed("bob/base", FILES)
    client = HubClient(ALICE, hub.url)
    with pytest.raises(HubRefusedError, match="no such model"):
        resolve("bob/absent", client)
    with pytest.raises(HubRefusedError, match="no such revision"):
        resolve("bob/base", client, "v9")
    files = RemoteFiles(resolve("bob/base", client), client)
    with pytest.raises(ModelError, match="has no file"):
        files.nbytes("absent")
    hub.repo("bob/base").commits.clear()
    with pytest.raises(HubRefusedError):
        files.read("config.json", 0, 2)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, HubRefusedError),
        (401, HubRefusedError),
        (403, HubRefusedError),
        (404, HubRefusedError),
        (408, HubUnreachableError),
        (409, HubConflictError),
        (412, HubConflictError),
        (413, HubRefusedError),
        (416, HubRefusedError),
        (422, HubRefusedError),
        (429, HubUnreachableError),
        (500, HubUnreachableError),
        (502, HubUnreachableError),
        (503, HubUnreachableError),
        (504, HubUnreachableError),
    ],
)
def test_every_status_becomes_its_exit_code(
    hub: Hub, status: int, error: type[GrowthError]
) -> None:
    hub.seed("bob/base", FILES)
    hub.fault("/api/models/bob/base", status=status, times=99)
    with pytest.raises(error, match=str(status)) as caught:
        resolve("bob/base", HubClient(ALICE, hub.url))
    assert "bob/base" in str(caught.value)


@pytest.mark.case("F-21")
def test_the_servers_text_cannot_reach_the_terminal_raw(hub: Hub) -> None:
    hub.seed("bob/base", FILES)
    evil = f"\x1b]0;owned [/foo] {ALICE} " + "x" * 5000
    hub.fault("/api/models", status=403, headers={"X-Error-Message": evil.replace("\x1b", "\x9b")})
    with pytest.raises(HubRefusedError) as caught:
        resolve("bob/base", HubClient(ALICE, hub.url))
    text = str(caught.value)
    assert text.isprintable()
    assert ALICE not in text
    assert len(text) < 500


@pytest.mark.case("G1")
def test_a_server_that_repeats_the_token_does_not_make_it_seen(hub: Hub) -> None:
    token = "org-token-of-another-shape"
    hub.fault("/api/models", status=403, headers={"X-Error-Message": f"{token} may not"})
    with pytest.raises(HubRefusedError) as caught:
        resolve("bob/base", HubClient(token, hub.url))
    assert "*** may not" in str(caught.value)
    assert token not in str(caught.value)


def test_nobody_at_the_address_is_told_at_once() -> None:
    with pytest.raises(HubUnreachableError, match="no answer") as caught:
        resolve("bob/base", HubClient(ALICE, "http://127.0.0.1:9"))
    assert "HF_HUB_OFFLINE" in caught.value.hint


def test_an_answer_that_is_none_is_unreachable(hub: Hub) -> None:
    hub.seed("bob/base", FILES)
    hub.fault("/api/models", status=200, headers={"Content-Type": "text/html"}, times=9)
    with pytest.raises(HubUnreachableError, match="makes no sense"):
        resolve("bob/base", HubClient(ALICE, hub.url))


def test_a_dropped_connection_is_tried_again(hub: Hub) -> None:
    sha = hub.seed("bob/base", FILES)
    fault = hub.fault("/api/models", drop=True, times=2)
    assert resolve("bob/base", HubClient(ALICE, hub.url)).revision == sha
    assert fault.num_hits == 2


def test_an_unknown_name_gets_candidates_and_is_never_chosen(hub: Hub) -> None:
    card = b"---\npipeline_tag: text-generation\nlibrary_name: %s\n---\n"
    llama = {"config.json": FILES["config.json"], "README.md": card % b"transformers"}
    for org in ("a", "b", "c", "d", "e"):
        hub.seed(f"{org}/Nano-{org}", {"README.md": card % b"transformers"})
    hub.seed("bob/Nano-tuned", llama)
    hub.seed("carol/Nano", {"README.md": card % b"transformers"})
    hub.seed("bob/Nano", llama)
    hub.seed("bob/Nano-GGUF", llama)
    hub.seed("bob/Nano-adapter", {"README.md": card % b"peft"})
    hub.seed("bob/secret-Nano", llama, private=True)
    with pytest.raises(UsageError) as caught:
        resolve("nano", HubClient(ALICE, hub.url))
    assert caught.value.exit_code == 2
    assert caught.value.details["candidates"] == [
        "bob/Nano",
        "carol/Nano",
        "bob/Nano-tuned",
        "a/Nano-a",
        "b/Nano-b",
    ]
    assert caught.value.hint == "name the one you mean, such as: hfgrow inspect bob/Nano"


def test_a_name_that_nobody_knows_has_no_candidates(hub: Hub) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("zzzz", HubClient(ALICE, hub.url))
    assert caught.value.details["candidates"] == []
    hub.fault("/api/models", status=500, times=99)
    with pytest.raises(HubUnreachableError, match="cannot be asked"):
        resolve("zzzz", HubClient(ALICE, hub.url))
