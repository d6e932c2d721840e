"""What a name can be: a folder, an id, an address, a revision; what is none is never sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfgrow.errors import UsageError
from hfgrow.hub.client import HubClient
from hfgrow.hub.failures import redact
from hfgrow.hub.names import check_revision
from hfgrow.hub.resolve import parse
from hfgrow.hub.search import UnknownNameError
from tests.hub import ALICE
from tests.hub.homes import model_folder

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.case("D6")
@pytest.mark.parametrize("shape", ["./here", "../work/here", "~/work/here", "/here"])
def test_an_explicit_path_is_a_folder(home: Path, shape: str) -> None:
    model_folder(home / "work" / "here")
    name = str(home / "work" / "here") if shape == "/here" else shape
    ref = parse(name)
    assert ref.path is not None
    assert ref.path.samefile(home / "work" / "here")
    assert ref.notes == ()


@pytest.mark.case("D6")
def test_a_bare_folder_with_a_config_is_used_and_said(home: Path) -> None:
    model_folder(home / "work" / "grown")
    model_folder(home / "work" / "runs" / "grown")
    (home / "work" / "empty").mkdir()
    assert parse("grown").path == Path("grown")
    assert parse("grown").notes == ("using the folder ./grown",)
    assert parse("runs/grown").path == Path("runs/grown")
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
    model_folder(home / "work" / "grown")
    with pytest.raises(UsageError, match="--revision"):
        parse("./grown", "main")
    with pytest.raises(UsageError, match="another revision"):
        parse("hf://bob/base@v1", "v2")


@pytest.mark.case("G1")
def test_a_token_in_a_name_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"https://user:{ALICE}@example.com/a/b")
    assert "hf_***" in str(caught.value)
    assert ALICE not in str(caught.value)
    assert redact(f"x {ALICE} y") == "x hf_*** y"


@pytest.mark.parametrize("token", ["hf_a b", "hf_\u00e9", "hf_a\nX-Evil: 1", "hf_\x1b"])
def test_a_token_that_is_none_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        HubClient(token)
    assert token not in str(caught.value)
