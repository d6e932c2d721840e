"""The test hub keeps what the unmodified client of huggingface_hub sends, as the Hub does."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, get_session
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from tests.hub import ALICE, BOB, Hub
from tests.hub.fixtures import IGNORE_CLIENT_WARNING
from tests.hub.plain_client import CARD, WEIGHTS, api, pull, push, sha256

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)


def test_a_push_comes_back_with_equal_hashes(hub: Hub, tmp_path: Path) -> None:
    """A git blob and an LFS object; the LFS object comes from another origin, without a token."""
    oid = push(hub, {"README.md": CARD, "model.safetensors": WEIGHTS})
    folder = pull(hub, tmp_path)
    assert sha256(folder / "model.safetensors") == sha256(WEIGHTS)
    assert (folder / "README.md").read_bytes() == CARD
    assert folder.name == oid == hub.head("alice/model")
    assert [commit.title for commit in hub.commits("alice/model")] == ["push", "initial commit"]
    stored = [record for record in hub.log if record.line.startswith("GET /storage/")]
    assert [(record.status, record.authorized) for record in stored] == [(200, False)]


def test_seeded_files_are_downloaded_and_listed(hub: Hub, tmp_path: Path) -> None:
    """A seed may be bytes or a file, and forced pages are followed."""
    source = tmp_path / "source"
    source.write_bytes(WEIGHTS)
    card = b"---\nlicense: mit\ntags: [grown]\nbase_model: acme/base\n---\n"
    hub.seed("alice/model", {"sub/model.safetensors": source, "README.md": card})
    hub.seed("acme/base", {"README.md": CARD})
    assert sha256(pull(hub, tmp_path) / "sub/model.safetensors") == sha256(WEIGHTS)
    hub.knobs.page_size = 1
    names = api(hub).list_repo_files("alice/model")
    assert names == [".gitattributes", "README.md", "sub/model.safetensors"]
    assert len(hub.lines("/tree/main?")) == 4
    assert [model.id for model in api(hub).list_models(filter="base_model:acme/base")] == [
        "alice/model"
    ]
    assert len(list(api(hub).list_models())) == 2


def test_multipart_uploads_are_joined(hub: Hub) -> None:
    """Three parts of a size that does not divide the content."""
    hub.knobs.part_bytes = 140_000
    push(hub, {"model.safetensors": WEIGHTS})
    blob = hub.files("alice/model")["model.safetensors"]
    assert isinstance(blob, Path)
    assert sha256(blob) == sha256(WEIGHTS)
    assert len(hub.lines("/parts/")) == 3


def test_an_unchanged_push_makes_no_commit(hub: Hub) -> None:
    """The client compares the hashes that preupload answers."""
    oid = push(hub, {"README.md": CARD, "model.safetensors": WEIGHTS})
    assert push(hub, {"README.md": CARD, "model.safetensors": WEIGHTS}) == oid


def test_a_stale_parent_is_a_conflict(hub: Hub) -> None:
    """412, and nothing is committed."""
    first = push(hub, {"a.txt": b"1"})
    second = push(hub, {"a.txt": b"2"})
    with pytest.raises(HfHubHTTPError) as caught:
        api(hub).upload_file(
            path_or_fileobj=b"3", path_in_repo="a.txt", repo_id="alice/model", parent_commit=first
        )
    assert caught.value.response.status_code == 412
    assert hub.head("alice/model") == second


def test_a_range_is_a_part_and_a_leaked_token_is_refused(hub: Hub) -> None:
    """206 with Content-Range, 416 past the end, 400 for a token at the storage."""
    hub.seed("alice/model", {"model.safetensors": WEIGHTS})
    url = f"{hub.url}/alice/model/resolve/main/model.safetensors"
    part = get_session().get(url, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == WEIGHTS[100:200]
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(WEIGHTS)}"
    past = get_session().get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert past.status_code == 416
    leak = get_session().get(str(part.url), headers={"Authorization": f"Bearer {ALICE}"})
    assert leak.status_code == 400
    assert [record.range for record in hub.log if record.status == 206] == ["bytes=100-199"]


def test_settings_and_deletions_take_effect(hub: Hub) -> None:
    """Visibility, tags, branches, files and the repository itself."""
    hub.seed("alice/model", {"a.txt": b"1", "sub/b.txt": b"2"})
    client = api(hub)
    client.update_repo_settings("alice/model", private=True)
    assert hub.repo("alice/model").private
    client.create_tag("alice/model", tag="v1")
    client.create_branch("alice/model", branch="exp")
    client.delete_tag("alice/model", tag="v1")
    client.delete_branch("alice/model", branch="exp")
    assert set(hub.repo("alice/model").refs) == {"refs/heads/main"}
    client.delete_folder("sub", "alice/model")
    client.delete_file("a.txt", "alice/model")
    assert set(hub.files("alice/model")) == {".gitattributes"}
    with pytest.raises(HfHubHTTPError, match="404"):
        client.delete_file("a.txt", "alice/model")
    client.delete_repo("alice/model")
    assert not hub.store.repos


def test_a_wrong_card_is_refused_before_any_upload(hub: Hub) -> None:
    """The client asks validate-yaml first and raises ValueError."""
    for head in (
        "license: my-own",
        "tags: grown",
        "base_model_relation: grown",
        "base_model: {a: b}",
        "language: English",
        "a: [",
    ):
        files = {"README.md": f"---\n{head}\n---\n".encode(), "model.safetensors": WEIGHTS}
        with pytest.raises(ValueError, match="Invalid metadata"):
            push(hub, files)
    assert hub.lines("/preupload/") == []


def test_a_commit_that_names_an_absent_object_is_refused(hub: Hub) -> None:
    """400 if the LFS object was never uploaded."""
    client = api(hub)
    client.create_repo("alice/model")
    operation = CommitOperationAdd("model.safetensors", WEIGHTS)
    client.preupload_lfs_files("alice/model", [operation], free_memory=False)
    hub.store.blobs.path(sha256(WEIGHTS)).unlink()
    with pytest.raises(BadRequestError, match="does not exist"):
        client.create_commit("alice/model", [operation], commit_message="push")


def test_branches_tags_and_pull_requests_are_revisions(hub: Hub) -> None:
    """A stranger may propose; the merge applies the proposal to main."""
    hub.seed("alice/model", {"a.txt": b"1"})
    client, stranger = api(hub), api(hub, BOB)
    client.create_branch("alice/model", branch="exp/one")
    client.create_tag("alice/model", tag="v1")
    client.upload_file(
        path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="alice/model", revision="exp/one"
    )
    proposal = stranger.upload_file(
        path_or_fileobj=b"3", path_in_repo="b.txt", repo_id="alice/model", create_pr=True
    )
    assert (proposal.pr_num, proposal.pr_revision) == (1, "refs/pr/1")
    stranger.upload_file(
        path_or_fileobj=b"4", path_in_repo="c.txt", repo_id="alice/model", revision="refs/pr/1"
    )
    assert hub.files("alice/model", "exp/one")["a.txt"] == b"2"
    assert hub.files("alice/model", "v1")["a.txt"] == b"1"
    assert "b.txt" not in hub.files("alice/model")
    client.merge_pull_request("alice/model", 1)
    assert client.get_discussion_details("alice/model", 1).status == "merged"
    assert {"a.txt", "b.txt", "c.txt"} <= hub.files("alice/model").keys()
