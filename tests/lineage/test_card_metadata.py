"""What a base's card says, as the Hub takes it: a push never fails for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfgrow.lineage.card import licence_note, metadata
from hfgrow.lineage.card_metadata import LICENCES, fit_for_the_hub, inherited
from hfgrow.lineage.manifest import Manifest
from tests.hub_server.cards import problems
from tests.links import CHAIN
from tests.program import call_hfgrow


def read(folder: Path, head: str) -> tuple[dict[str, Any], list[str]]:
    (folder / "README.md").write_text(f"---\n{head}\n---\n# base\n")
    notes: list[str] = []
    return inherited(folder, notes.append), notes


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("zh-CN", ["zh"]),
        ("en-US", ["en"]),
        ("pt_BR", ["pt"]),
        ("English", ["en"]),
        ("EN", ["en"]),
        ("jp", ["ja"]),
        ("'English, Chinese'", ["en", "zh"]),
        ("[en, en-GB, de]", ["en", "de"]),
        ("multilingual", ["multilingual"]),
        ("yue", ["yue"]),
        ("no", ["no"]),
    ],
)
def test_a_language_is_written_as_its_code(tmp_path: Path, given: str, code: list[str]) -> None:
    found, notes = read(tmp_path, f"language: {given}")
    assert found == {"language": code}
    assert notes == []
    assert problems(found) == []


@pytest.mark.parametrize("given", ["Klingon", "[zz, xx-YY]", "'50+ languages'"])
def test_a_language_that_is_none_is_left_out_with_a_note(tmp_path: Path, given: str) -> None:
    found, notes = read(tmp_path, f"language: {given}")
    assert "language" not in found
    assert notes == [] if given.startswith("'5") else len(notes) == 1


@pytest.mark.parametrize(
    ("given", "licence"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("'Apache License, Version 2.0'", "apache-2.0"),
        ("MIT License", "mit"),
        ("GPLv3", "gpl-3.0"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("Llama3.1", "llama3.1"),
        ("Llama 3.1 Community License", "llama3.1"),
        ("[apache-2.0, mit]", ["apache-2.0", "mit"]),
        ("[mit]", "mit"),
        ("[MIT, mit]", "mit"),
        ("'mit, apache-2.0'", ["mit", "apache-2.0"]),
        ("Apache 2.0 or MIT", ["apache-2.0", "mit"]),
    ],
)
def test_a_licence_is_written_by_its_identifier(
    tmp_path: Path, given: str, licence: str | list[str]
) -> None:
    found, notes = read(tmp_path, f"license: {given}")
    assert found == {"license": licence}
    assert notes == []
    assert problems(found) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [("tongyi-qianwen", "tongyi-qianwen"), ("[mit, My Own]", "mit-and-my-own")],
)
def test_a_licence_that_the_hub_does_not_know_is_other_with_its_name(
    tmp_path: Path, given: str, name: str
) -> None:
    found, notes = read(tmp_path, f"license: {given}\nlicense_link: LICENSE")
    assert found == {"license": "other", "license_name": name, "license_link": "LICENSE"}
    assert len(notes) == 1
    assert name in licence_note(found, is_from_scratch=False)
    assert problems(found) == []


@pytest.mark.parametrize("licence", sorted(LICENCES))
def test_every_identifier_is_itself(licence: str) -> None:
    assert fit_for_the_hub({"license": licence}) == ({"license": licence}, [])


def test_of_two_licences_each_asks_for_its_look() -> None:
    assert "no commercial use" in licence_note(
        {"license": ["mit", "cc-by-nc-4.0"]}, is_from_scratch=False
    )


def test_a_lineage_of_before_is_pushed_with_what_the_hub_takes() -> None:
    card = {"license": "Apache-2.0", "language": ["zh-CN", "English"]}
    block = metadata(Manifest((replace(CHAIN[0], card=card),)))
    assert block["license"] == "apache-2.0"
    assert block["language"] == ["zh", "en"]
    assert problems(block) == []


def test_two_licences_stand_in_the_card_of_what_grows(base: Path, tmp_path: Path) -> None:
    (base / "README.md").write_text("---\nlicense:\n- apache-2.0\n- mit\n---\n")
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "license:\n- apache-2.0\n- mit\n" in text
    assert "names no licence" not in text
    assert call_hfgrow("lineage", tmp_path / "out").returncode == 0
