"""From a name to a commit: pinning, candidates, and every answer that is none.

What a name can be: a folder, an id, an address, a revision; what is none is never sent.

Aliases: ours, the user's own, and names that only look like one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from hfgrow.errors import (
    GrowthError,
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    ModelError,
    UsageError,
    redacted,
)
from hfgrow.hub.client import HubClient
from hfgrow.hub.pull import RemoteFiles
from hfgrow.hub.repo_names import check_repo_id, check_revision, edit_distance
from hfgrow.hub.resolve import parse, pin, resolve
from hfgrow.hub.search import UnknownNameError, load_aliases
from tests.hub_server import ALICE, BOB, Hub
from tests.hub_server.homes import model_folder
from tests.hub_server.models import FILES, WEIGHTS

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


def test_of_a_folder_that_is_no_model_the_folder_is_spoken_of_and_not_the_network(
    home: Path, hub: Hub
) -> None:
    (home / "models" / "empty").mkdir()
    found = r"^'empty' is a folder without a config\.json and no alias"
    with pytest.raises(UsageError, match=f"{found}, and the Hub knows none either$"):
        resolve("empty", HubClient(ALICE, hub.url))
    hub.fault("/api/models", status=500, times=99)
    with pytest.raises(UsageError, match=f"{found}$"):
        resolve("empty", HubClient(ALICE, hub.url))


def test_a_search_may_be_the_first_question_of_a_program(hub: Hub) -> None:
    set_client_factory(default_client_factory)
    with pytest.raises(UsageError, match=r"and the Hub knows none either$"):
        resolve("zzzz", HubClient(ALICE, hub.url))


@pytest.mark.case("D6")
@pytest.mark.parametrize("shape", ["./here", "../models/here", "~/models/here", "/here"])
def test_an_explicit_path_is_a_folder(home: Path, shape: str) -> None:
    model_folder(home / "models" / "here")
    name = str(home / "models" / "here") if shape == "/here" else shape
    ref = parse(name)
    assert ref.path is not None
    assert ref.path.samefile(home / "models" / "here")
    assert ref.notes == ()


@pytest.mark.case("D6")
def test_a_bare_folder_is_used_and_said_where_it_could_be_a_repository(
    home: Path,
) -> None:
    model_folder(home / "models" / "grown")
    model_folder(home / "models" / "runs" / "grown")
    (home / "models" / "empty").mkdir()
    assert parse("grown").path == Path("grown")
    assert parse("grown").notes == ()
    assert parse("runs/grown").path == Path("runs/grown")
    assert parse("runs/grown").notes == ("using the folder ./runs/grown",)
    (home / "models" / "runs" / "grown" / "hfgrow.json").touch()
    assert parse("runs/grown").notes == ()
    with pytest.raises(UnknownNameError):
        parse("empty")


@pytest.mark.case("D4")
@pytest.mark.parametrize(
    ("name", "repo_id", "revision"),
    [
        ("bob/base", "bob/base", None),
        ("hf://bob/base", "bob/base", None),
        ("hf://models/bob/base@v1", "bob/base", "v1"),
        ("hf://bob/base@refs/pr/3", "bob/base", "refs/pr/3"),
        ("https://huggingface.co/bob/base", "bob/base", None),
        ("https://huggingface.co/bob/base/tree/v1", "bob/base", "v1"),
    ],
)
def test_ids_uris_and_urls_name_a_repository(name: str, repo_id: str, revision: str | None) -> None:
    ref = parse(name)
    assert (ref.repo_id, ref.revision, ref.label) == (repo_id, revision, repo_id)


@pytest.mark.case("D1", "D2", "D3", "D4")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "-x",
        "--push",
        "a/b/c",
        "a--b/c",
        "a/b..c",
        "org/a b",
        "a/x.git",
        "a/" + "n" * 97,
        "\uff41/b",
        "a/b\u202e",
        "a/b\n",
        "a/b?x",
        "a%2fb/c",
        "a/b@v1",
        "org/$(id)",
        "`id`/x",
        "nul\0",
        "datasets/a",
        "spaces/a",
        "hf://datasets/a/b",
        "hf://spaces/a/b@v1",
        "hf://a/b/config.json",
        "hf://a/b@../../x",
        "hf://",
        "https://example.com/a/b",
        "https://huggingface.co/a/b/settings",
        "./absent",
        "~nobody-of-this-name/x",
    ],
)
def test_an_impossible_name_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(name)
    assert str(caught.value).isprintable()


@pytest.mark.case("D5")
@pytest.mark.parametrize(
    "revision",
    [
        "../../../x",
        "a/../b",
        "-x",
        "x" * 201,
        "a b",
        "",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a\n",
        "\u00e9",
    ],
)
def test_a_revision_that_could_leave_the_cache_is_refused(revision: str) -> None:
    with pytest.raises(UsageError, match="no revision"):
        parse("bob/base", revision)


@pytest.mark.case("D5")
@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "v1.0", "feature/x_y", "0" * 40])
def test_a_real_revision_passes(revision: str) -> None:
    check_revision(revision)


def test_a_revision_is_not_ignored(home: Path) -> None:
    model_folder(home / "models" / "grown")
    with pytest.raises(UsageError, match=r"^revision is for models on the Hub"):
        parse("./grown", "main")
    with pytest.raises(UsageError, match="another revision"):
        parse("hf://bob/base@v1", "v2")


@pytest.mark.case("G1")
def test_a_token_in_a_name_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"https://user:{ALICE}@example.com/a/b")
    assert "***@example.com" in str(caught.value)
    assert ALICE not in str(caught.value)
    assert redacted(f"x {ALICE} y") == "x hf_*** y"


@pytest.mark.parametrize("token", ["hf_a b", "hf_\u00e9", "hf_a\nX-Evil: 1", "hf_\x1b"])
def test_a_token_that_is_none_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        HubClient(token)
    assert token not in str(caught.value)


TINY = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"


@pytest.mark.parametrize("name", ["TinyLlama", "tinyllama", "TINYLLAMA"])
def test_an_alias_matches_in_any_case(name: str) -> None:
    ref = parse(name)
    assert ref.repo_id == TINY
    assert ref.alias == "TinyLlama"
    assert ref.revision == "036fa4651240b9a1487f709833b9e4b96b4c1574"
    assert ref.notes == ()
    assert parse(name, "main").revision == "main"


def test_every_alias_is_a_model_id_and_no_chat_model() -> None:
    for alias in load_aliases().values():
        check_repo_id(alias.repo_id)
        assert not {"chat", "instruct", "it"} & set(alias.repo_id.casefold().split("-"))
        assert alias.note


def test_the_demo_alias_is_the_folder_of_the_package() -> None:
    ref = parse("demo")
    assert ref.label == "demo"
    assert ref.path is not None
    assert ref.path.parts[-2:] == ("hfgrow", "demo")


@pytest.mark.case("D6")
@pytest.mark.parametrize("name", ["TinyLlama", "tinyllama", "demo"])
def test_a_folder_named_like_an_alias_must_be_told_apart(home: Path, name: str) -> None:
    model_folder(home / "models" / name)
    with pytest.raises(UsageError, match="folder here, and also an alias") as caught:
        parse(name)
    assert f"./{name}" in caught.value.hint
    assert parse(f"./{name}").path is not None


def test_the_users_own_aliases_come_second(home: Path) -> None:
    table = home / ".config" / "hfgrow" / "aliases.toml"
    table.parent.mkdir(parents=True)
    table.write_text('mine = "bob/base"\nTinyLlama = "bob/base"\n["my-1.7B"]\nrepo = "bob/x"\n')
    assert parse("Mine").repo_id == "bob/base"
    assert parse("Mine").notes == (f"mine is an alias of {table}",)
    assert parse("my-1.7B").repo_id == "bob/x"
    assert parse("TinyLlama").repo_id == TINY


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 5000,
        "x = " + "9" * 5000,
        "x = 3",
        "[x]\nrepo = 'a'",
        "[x]\nrepo='a/b'\nrevision='v1'",
        "[x",
        "[x]\nr='a/b'",
    ],
)
def test_a_bad_table_of_aliases_is_named(home: Path, text: str) -> None:
    table = home / ".config" / "hfgrow" / "aliases.toml"
    table.parent.mkdir(parents=True)
    table.write_text(text)
    with pytest.raises(UsageError, match=r"aliases\.toml"):
        parse("anything")


def test_a_look_alike_of_an_alias_is_warned_about() -> None:
    fake = TINY.replace("TinyLlama/", "TinyLIama/")
    assert "spelled much like it" in parse(fake).notes[0]
    assert parse(TINY).notes == ()
    assert parse("unsloth/Llama-3.2-1B").notes == ()
    assert [edit_distance("abc", other, limit=2) for other in ("abc", "abd", "b", "xyzw")] == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize(("name", "meant"), [("TinyLama", TINY), ("demoo", "demo")])
def test_a_slip_in_an_alias_is_told_without_asking_the_hub(hub: Hub, name: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(name, HubClient(ALICE, hub.url))
    assert caught.value.details["candidates"] == [meant]
    assert not hub.log


@pytest.mark.case("G11")
def test_for_a_stranger_no_token_is_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", BOB)
    hub.seed("bob/secret", FILES, private=True)
    assert resolve("bob/secret", HubClient(endpoint=hub.url)).private
    stranger = HubClient(endpoint=hub.url, anonymous=True)
    with pytest.raises(HubRefusedError, match=r"private \(401\)"):
        resolve("bob/secret", stranger)
    hub.seed("bob/base", FILES)
    RemoteFiles(resolve("bob/base", stranger), stranger).read("config.json", 0, 2)
    assert [one.authorized for one in hub.log] == [True, False, False, False]


@pytest.mark.case("G11")
def test_for_a_stranger_a_name_is_no_folder(hub: Hub) -> None:
    model_folder(Path("bob/base"))
    sha = hub.seed("bob/base", FILES)
    stranger = HubClient(endpoint=hub.url, anonymous=True)
    assert resolve("bob/base", HubClient(endpoint=hub.url)).path == Path("bob/base")
    assert resolve("bob/base", stranger).revision == sha
    with pytest.raises(
        UsageError, match=r"^'\./bob/base' is a folder, and only models of the Hub are read here$"
    ):
        resolve("./bob/base", stranger)
