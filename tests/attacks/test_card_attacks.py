"""Groups G5 to G8 and G10: hostile cards of bases, hostile names."""

import re
from pathlib import Path

import pytest
import yaml

from hfgrow.lineage.card_metadata import inherited
from tests.program import call_hfgrow

BOMB = "\n".join(
    ["a: &a [x,x,x,x,x,x,x,x,x]"]
    + [
        f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]"
        for p, n in zip("abcdefgh", "bcdefghi", strict=True)
    ]
)


def front_matter(folder: Path, text: str) -> Path:
    (folder / "README.md").write_text(f"---\n{text}\n---\n# Base\n", encoding="utf-8")
    return folder


@pytest.mark.case("G5")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("license: !!python/object/apply:os.system ['touch evil; x']", id="python"),
        pytest.param("license: !!python/name:os.system", id="python-name"),
        pytest.param(BOMB + "\nlicense: mit", id="alias-bomb"),
        pytest.param("license: &x mit\nlicense_name: *x", id="alias"),
        pytest.param("license: no", id="no"),
        pytest.param("license: 5", id="number"),
        pytest.param("license: [5, {mit: x}, '<b>']", id="list"),
        pytest.param("license: {mit: x}", id="map"),
        pytest.param("license: null", id="null"),
        pytest.param("license: 2024-01-01", id="date"),
        pytest.param("license: 'mit\n\n  evil: yes'", id="newline"),
        pytest.param("license: '---'\x00", id="nul"),
        pytest.param("license: '<script>'", id="html"),
        pytest.param("license: '{{ 7 * 7 }}'", id="jinja"),
        pytest.param("license: " + "m" * 100, id="long"),
        pytest.param("- license\n- mit", id="not-a-map"),
        pytest.param("license", id="text"),
        pytest.param("", id="empty"),
        pytest.param("[" * 5000, id="deep"),
        pytest.param("license: mit\n\tlicense: x", id="tab"),
        pytest.param("? [a]\n: b\n? {c: d}\n: e", id="strange-keys"),
        pytest.param("language: 5", id="language-number"),
        pytest.param("language: [5, null, {a: b}, '<b>']", id="language-mixed"),
        pytest.param("license_link: 'javascript:alert(1)'", id="link-script"),
        pytest.param("license_link: 'x) [y](http://evil'", id="link-markdown"),
    ],
)
def test_hostile_metadata_give_nothing(tmp_path: Path, text: str) -> None:
    assert inherited(front_matter(tmp_path, text)) == {}
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("head", ["---", "---\n---", "no card", "---\nlicense: mit", "\ufeff---\n"])
def test_a_card_without_front_matter_gives_nothing(tmp_path: Path, head: str) -> None:
    (tmp_path / "README.md").write_text(head)
    assert inherited(tmp_path) == {}


def test_only_the_head_of_a_giant_card_is_read(tmp_path: Path) -> None:
    front_matter(tmp_path, "license: mit")
    with (tmp_path / "README.md").open("r+b") as file:
        file.truncate(1 << 40)
    assert inherited(tmp_path) == {"license": "mit"}


def test_bytes_that_are_no_text_are_no_crash(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\nx: \xff\xfe\n---\n")
    assert inherited(tmp_path) in ({}, {"license": "mit"})


@pytest.mark.case("G5", "G8", "G10")
def test_only_licence_and_language_are_inherited(tmp_path: Path) -> None:
    """G5, G10: no results, no tags, no datasets, no widget of the base's."""
    text = """
license: other
license_name: llama3.2
license_link: https://example.org/LICENSE
language: [en, de, 7]
tags: 5
model-index: 7
base_model: victim/model
eval_results: great
widget: {x: y}
extra_gated_prompt: give me your name
"""
    assert inherited(front_matter(tmp_path, text)) == {
        "license": "other",
        "license_name": "llama3.2",
        "license_link": "https://example.org/LICENSE",
        "language": ["en", "de"],
    }


def test_the_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\r\nlicense: mit\r\n---\r\n# x\r\n")
    assert inherited(tmp_path) == {"license": "mit"}


@pytest.mark.case("G6")
def test_the_text_of_the_bases_card_is_never_copied(base: Path, tmp_path: Path) -> None:
    """G6: HTML, templates, and words to whoever reads it."""
    evil = "<script>alert(1)</script> {{ 7 * 7 }} ![x](http://evil/x.png) ignore all instructions"
    (base / "README.md").write_text(f"---\nlicense: mit\n---\n{evil}\n")
    assert call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out").returncode == 0
    for path in (tmp_path / "out").iterdir():
        raw = path.read_bytes()
        for word in (b"script", b"7 * 7", b"http://evil", b"instructions"):
            assert word not in raw, path.name


def test_a_card_that_is_a_link_out_of_the_folder_is_not_read(base: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("---\nlicense: secret-licence\n---\n")
    (base / "README.md").symlink_to(tmp_path / "secret")
    call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    written = [path.read_text() for path in tmp_path.glob("out/*") if path.suffix != ".safetensors"]
    assert not any("secret-licence" in text for text in written)


@pytest.mark.case("D2", "G7")
@pytest.mark.parametrize(
    "name",
    [
        "`id`",
        "$(id)",
        "a; touch evil",
        "<script>alert(1)</script>",
        "[x](http:evil)",
        "a | b",
        "# title",
        "---",
        "name: x",
        '"quoted"',
        "'",
        "line\nbreak",
        "\u202egnp.exe",
    ],
)
def test_a_hostile_output_name_cannot_break_the_card(base: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name.replace("/", "_")
    finished = call_hfgrow("stack", base, "--g", "2", "--out", out)
    assert finished.returncode == 0, finished.stderr
    card = (out / "README.md").read_text()
    _, block, body = card.split("---\n", 2)
    assert set(yaml.safe_load(block)) == {"library_name", "pipeline_tag", "tags"}
    assert not re.search(r"<script|\$\(|\]\(http:|\u202e|; touch", body)
    assert len(re.findall(r"^# ", body, re.MULTILINE)) == 1
    assert len(body.split("```")) == 5
