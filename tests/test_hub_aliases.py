"""Aliases: ours, the user's own, and names that only look like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfgrow.errors import UsageError
from hfgrow.hub.client import HubClient
from hfgrow.hub.names import check_repo_id, edit_distance
from hfgrow.hub.resolve import parse, resolve
from hfgrow.hub.search import load_aliases
from tests.hub import ALICE, Hub
from tests.hub.homes import model_folder

pytestmark = pytest.mark.usefixtures("home")
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
    model_folder(home / "work" / name)
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
