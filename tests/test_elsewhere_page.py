"""What docs/elsewhere.md says of other programs is renewed cell by cell."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.document import put
from benchmarks.elsewhere import page
from benchmarks.elsewhere.models import BASES
from benchmarks.elsewhere.page import Cell, standing, written
from benchmarks.elsewhere.tools import TOOLS

FOUND = {
    ("mlx-lm", "Llama", ""): Cell("**wrong**", "1 of 24 tokens, logits off by 5"),
    ("mlx-lm", "Llama", "stack --g 2"): Cell("right"),
    ("mlx-lm", "Llama, llama3 scaling", ""): Cell("refused", "ValueError: a, b: `c`"),
    ("mlx-lm", "Llama, llama3 scaling", "stack --g 2"): Cell("refused", "ValueError: a, b: `c`"),
    ("litgpt", "Gemma 3", "partial [1:6]*2-[7:8]"): Cell("right"),
}


@pytest.fixture
def a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page that says what was found."""
    path = tmp_path / "elsewhere.md"
    path.write_text("<!-- programs -->\n<!-- end of programs -->\n")
    put(path, "programs", written(FOUND))
    monkeypatch.setattr(page, "PAGE", path)
    return path


@pytest.mark.usefixtures("a_page")
def test_what_the_page_says_is_read_as_it_was_found() -> None:
    assert standing() == FOUND


def test_what_was_not_run_is_told(a_page: Path) -> None:
    (line,) = (line for line in a_page.read_text().splitlines() if "| Qwen2 | not" in line)
    assert line.count("| not run ") == len(TOOLS)


@pytest.mark.usefixtures("a_page")
def test_what_another_version_of_a_program_made_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [
        replace(tool, packages=("mlx-lm==1",)) if tool.name == "mlx-lm" else tool for tool in TOOLS
    ]
    monkeypatch.setattr(page, "TOOLS", others)
    assert {tool for tool, _, _ in standing()} == {"litgpt"}


@pytest.mark.usefixtures("a_page")
def test_what_was_compared_with_another_transformers_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page, "version", lambda _name: "1")
    assert standing() == {}


def test_every_program_and_family_has_its_cells_on_the_page() -> None:
    text = page.PAGE.read_text()
    header = ["family", "growth", *(tool.name for tool in TOOLS)]
    assert f"| {' | '.join(header)} |" in text
    assert [base.name for base in BASES if f"\n| {base.name} | not grown" not in text] == []
