"""The test hub lets in whom the Hub would: strangers, members, read-only tokens, gates."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import ALICE_READ, BOB, CAROL, Hub
from tests.hub.plain_client import api, pull


def test_a_private_repository_is_hidden_from_strangers(hub: Hub) -> None:
    """Info, listing and download answer as if it did not exist."""
    hub.seed("acme/secret", {"a.txt": b"1"}, private=True)
    with pytest.raises(RepositoryNotFoundError):
        api(hub, BOB).model_info("acme/secret")
    assert list(api(hub, BOB).list_models()) == []
    assert api(hub, CAROL).model_info("acme/secret").private


def test_a_gate_stops_downloads_until_granted(hub: Hub, tmp_path: Path) -> None:
    """The info is public, the files are not."""
    hub.seed("alice/model", {"a.txt": b"1"}, gated=True)
    assert api(hub, BOB).model_info("alice/model").gated == "manual"
    with pytest.raises(GatedRepoError):
        api(hub, BOB).auth_check("alice/model")
    with pytest.raises(GatedRepoError):
        api(hub, BOB).hf_hub_download("alice/model", "a.txt", cache_dir=tmp_path)
    hub.repo("alice/model").granted.add("bob")
    assert (pull(hub, tmp_path, BOB) / "a.txt").read_bytes() == b"1"


@pytest.mark.parametrize(("token", "repo_id"), [(ALICE_READ, "alice/x"), (BOB, "acme/x")])
def test_a_token_without_the_right_creates_nothing(hub: Hub, token: str, repo_id: str) -> None:
    """A read-only token, and a namespace of others."""
    with pytest.raises(HfHubHTTPError) as caught:
        api(hub, token).create_repo(repo_id)
    assert caught.value.response.status_code == 403
    assert not hub.store.repos


@pytest.mark.parametrize(("token", "status"), [(ALICE_READ, 403), (BOB, 403), ("", 401)])
def test_only_members_with_a_write_token_change_a_repository(
    hub: Hub, token: str, status: int
) -> None:
    """A public repository can be read by all of them, and the check of access says who writes."""
    head = hub.seed("alice/model", {"a.txt": b"1"})
    client = HfApi(endpoint=hub.url, token=token or False)
    assert client.model_info("alice/model").sha == head
    for change in (
        lambda: client.upload_file(
            path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="alice/model"
        ),
        lambda: client.create_tag("alice/model", tag="v1"),
        lambda: client.auth_check("alice/model", write=True),
        lambda: client.delete_repo("alice/model"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            change()
        assert caught.value.response.status_code == status
    assert hub.head("alice/model") == head


def test_an_unknown_token_and_an_unknown_revision_are_named(hub: Hub) -> None:
    """The errors of the client, which it tells apart by headers."""
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api(hub, "hf_" + "x" * 34).whoami()
    assert api(hub, CAROL).whoami()["orgs"][0]["name"] == "acme"
    hub.seed("alice/model", {})
    with pytest.raises(RevisionNotFoundError):
        api(hub).model_info("alice/model", revision="nope")
