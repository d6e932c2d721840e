"""The test hub keeps what the unmodified client of huggingface_hub sends, as the Hub does.

The test hub lets in whom the Hub would: strangers, members, read-only tokens, gates.

Programs that talk to the test hub: hf with and without xet, transformers, and its own.

The faults of the test hub: what the client repeats, and what it does not notice.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_session
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import ALICE, ALICE_READ, BOB, CAROL, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING, hub_environment
from tests.hub_server.plain_client import CARD, WEIGHTS, api, pull, push, sha256

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


def test_a_hollow_hub_keeps_hash_and_size_of_an_upload(hub: Hub, tmp_path: Path) -> None:
    """The disk of the server is no part of a benchmark of clients; a Git blob stays as it is."""
    with Hub(folder=tmp_path, hollow=True) as hollow:
        push(hollow, {"README.md": CARD, "model.safetensors": WEIGHTS})
        found = hollow.files("alice/model")
        assert found["README.md"] == CARD
        weights = found["model.safetensors"]
        assert isinstance(weights, Path)
        assert weights.name == sha256(WEIGHTS)
        assert weights.read_bytes() == bytes(len(WEIGHTS))


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


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command of this environment against a hub."""

    def run_command(hub: Hub, *command: str, token: str = ALICE, xet: bool = False) -> str:
        environment = hub_environment(hub, tmp_path / "home", token, xet=xet)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_command


def test_hf_uploads_and_downloads(hub: Hub, run: Run, tmp_path: Path) -> None:
    """The command-line client, with LFS."""
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    run(hub, "hf", "upload", "alice/model", str(tmp_path / "model.safetensors"))
    run(hub, "hf", "download", "alice/model", "--local-dir", str(tmp_path / "down"), token=BOB)
    assert sha256(tmp_path / "down" / "model.safetensors") == sha256(WEIGHTS)


@pytest.mark.xet
@pytest.mark.xdist_group("xet")
def test_xet_uploads_become_plain_files(xet_hub: Hub, run: Run, tmp_path: Path) -> None:
    """Two uploads by the default client: one file, then a folder with a second one."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "README.md").write_bytes(CARD)
    run(xet_hub, "hf", "upload", "alice/model", str(folder), xet=True)
    (folder / "second.safetensors").write_bytes(WEIGHTS[::-1])
    run(xet_hub, "hf", "upload", "alice/model", str(folder), xet=True)
    folder = pull(xet_hub, tmp_path)
    assert sha256(folder / "model.safetensors") == sha256(WEIGHTS)
    assert sha256(folder / "second.safetensors") == sha256(WEIGHTS[::-1])
    assert (folder / "README.md").read_bytes() == CARD
    assert xet_hub.lines("PUT /lfs/") == []
    assert xet_hub.lines("/xet-write-token/")


FROM_PRETRAINED = """
import sys, torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=2, vocab_size=32)
model = LlamaForCausalLM(LlamaConfig(**sizes))
model.push_to_hub("alice/tiny")
again = AutoModelForCausalLM.from_pretrained("alice/tiny")
ids = torch.arange(8)[None]
assert torch.equal(model(ids).logits, again(ids).logits)
"""


@pytest.mark.slow
def test_transformers_pushes_and_loads_a_model(hub: Hub, run: Run) -> None:
    """A tiny random Llama makes the round trip with equal logits."""
    run(hub, "python", "-c", FROM_PRETRAINED)
    facts = api(hub).model_info("alice/tiny")
    assert facts.safetensors is not None
    assert facts.safetensors.total == 32 * 16 * 2 + 2 * (4 * 16 * 16 + 3 * 16 * 32 + 2 * 16) + 16
    assert facts.config == {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def test_python_m_serves_until_terminated(tmp_path: Path) -> None:
    """The first line on stdout is the address; SIGTERM ends it well."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hub_server", "--port", "0", "--folder", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        client = HfApi(endpoint=server.stdout.readline().strip(), token=ALICE)
        try:
            assert client.whoami()["name"] == "alice"
        finally:
            server.terminate()
    assert server.returncode == 0


def test_two_faults_of_503_are_retried(hub: Hub) -> None:
    """The client repeats the LFS batch, and not what it does not hold to be repeatable."""
    fault = hub.fault("objects/batch", status=503, headers={"Retry-After": "0"}, times=2)
    push(hub, {"model.safetensors": WEIGHTS})
    assert fault.num_hits == 2
    statuses = [record.status for record in hub.log if "objects/batch" in record.line]
    assert statuses == [503, 503, 200]
    hub.fault("POST .*/commit/main", status=503)
    with pytest.raises(HfHubHTTPError, match="503"):
        push(hub, {"a.txt": b"1"})


def test_a_cut_download_is_repeated(hub: Hub, tmp_path: Path) -> None:
    """The connection ends in the middle of the body; the file is whole in the end."""
    hub.seed("alice/model", {"model.safetensors": WEIGHTS})
    hub.fault("GET /storage/", cut_after_bytes=100_000)
    assert sha256(pull(hub, tmp_path) / "model.safetensors") == sha256(WEIGHTS)
    assert len(hub.lines("GET /storage/")) == 2


def test_a_cut_upload_is_repeated(hub: Hub) -> None:
    """The connection ends while the client sends."""
    hub.fault("PUT /lfs/objects/", cut_upload_after_bytes=100_000)
    push(hub, {"model.safetensors": WEIGHTS})
    assert len(hub.lines("PUT /lfs/objects/")) == 2


def test_a_corrupt_download_has_the_right_length_only(hub: Hub, tmp_path: Path) -> None:
    """The client checks the length and not the hash."""
    hub.seed("alice/model", {"model.safetensors": WEIGHTS})
    hub.fault("GET /storage/", corrupt_at=1234)
    data = (pull(hub, tmp_path) / "model.safetensors").read_bytes()
    assert len(data) == len(WEIGHTS)
    assert [at for at in range(len(data)) if data[at] != WEIGHTS[at]] == [1234]


def test_a_lost_commit_response_leaves_the_commit(hub: Hub) -> None:
    """The client fails, the commit exists, and pushing again changes nothing."""
    hub.fault("POST .*/commit/main", drop=True)
    with pytest.raises(Exception, match=r"(?i)disconnected|reset") as caught:
        push(hub, {"a.txt": b"1"})
    assert not isinstance(caught.value, HfHubHTTPError)
    assert hub.files("alice/model")["a.txt"] == b"1"
    assert push(hub, {"a.txt": b"1"}) == hub.head("alice/model")
    assert len(hub.commits("alice/model")) == 2
