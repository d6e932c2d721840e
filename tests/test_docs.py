"""README.md and docs/ say what is true: commands run, tables are complete."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.reach.peer import with_peer
from hfgrow.plan.families import FAMILIES
from hfgrow.plan.operators import OPERATORS
from tests.growths import NEAR, REFUSED
from tests.program import call_hfgrow

pytestmark = pytest.mark.xdist_group("docs")

ROOT = Path(__file__).parents[1]
ALL_PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
README = (ROOT / "README.md").read_text()
PAGES = ("app.md", "budget.md", "evaluation.md", "growths.md", "walkthrough.md")
ALGEBRA = (ROOT / "docs" / "operators.md").read_text()


def commands() -> list[list[str]]:
    """Every hfgrow command of the README and of the pages with commands."""
    pages = README + "".join((ROOT / "docs" / name).read_text() for name in PAGES)
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", pages, re.DOTALL | re.MULTILINE))
    lines = re.findall(r"^(hfgrow [^#\n]*)", blocks, re.MULTILINE)
    lines += re.findall(r"^    (hfgrow [^#\n]*)", README, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def hfgrow_help() -> dict[str, str]:
    """The help text of every command that the README names."""
    return {
        name: call_hfgrow(*name.split(), "--help").stdout
        for name in {command_of(words) for words in commands()}
    }


def command_of(words: list[str]) -> str:
    """Return the command of a line; `data` is a group of commands."""
    return " ".join(words[1:3]) if words[1] == "data" else words[1]


def test_the_readme_shows_commands() -> None:
    assert len(commands()) >= 6


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_of_the_readme_is_one(words: list[str], hfgrow_help: dict[str, str]) -> None:
    for option in (word for word in words[2:] if word.startswith("--")):
        assert option in hfgrow_help[command_of(words)]


def test_the_walkthrough_shows_what_the_budget_prints() -> None:
    page = (ROOT / "docs" / "walkthrough.md").read_text()
    (words,) = (words for words in commands() if words[1:4] == ["budget", "--parameters", "2.67M"])
    block = page[page.index("    target  ") :].split("\n\n")[0]
    *shown, rest = (line.removeprefix("    ") for line in block.splitlines())
    assert rest == "..."
    assert call_hfgrow(*words[1:]).stdout.splitlines()[: len(shown)] == shown


def test_every_operator_is_in_the_readme() -> None:
    for name in OPERATORS:
        assert f"| `{name} " in README, f"the table of operators in README.md has no row of {name}"


def test_every_family_is_in_the_readme() -> None:
    for family in FAMILIES.values():
        assert family.architecture.removesuffix("ForCausalLM") in README


def test_every_file_of_the_code_tree_exists() -> None:
    tree = re.search(r"^```\nhfgrow/\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert tree is not None
    assert len(tree[1].splitlines()) <= 25
    for line in tree[1].splitlines():
        inside, name = re.match(r"( *)([\w./]+)", line).groups()  # type: ignore[union-attr]
        assert (ROOT / ("hfgrow" if inside else "") / name).exists(), name


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(
        r"`((?:hfgrow|cli|recipes|tests|benchmarks|docs)/[\w./-]*)", page.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_function_that_the_walks_name_stands_in_its_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:hfgrow|cli|recipes)/[\w/]+\.py)::([\w.]+)`", page)
    assert len(named) > 20
    for path, name in named:
        body = ast.parse((ROOT / path).read_text()).body
        for part in name.split("."):
            found = [node for node in body if getattr(node, "name", None) == part]
            assert found, f"{path} has no {name}"
            body = getattr(found[0], "body", [])


def test_the_first_commands_are_the_two_that_set_up_everything() -> None:
    found = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    assert found == ["demo", "test"]


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    exec(compile(code[1], "README.md", "exec"), {})
    assert (tmp_path / "demo-stack-g4" / "hfgrow.json").is_file()


def proof_matrix() -> dict[str, dict[str, str]]:
    """Operator -> family -> cell of the table that `python -m benchmarks.proof_matrix` writes."""
    found = re.search(r"<!-- proof matrix -->\n(.*?)<!-- end of", ALGEBRA, re.DOTALL)
    assert found is not None
    head, _, *rows = (
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in found[1].splitlines()
        if line.startswith("|")
    )
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_every_operator_and_family_is_in_the_proof_matrix() -> None:
    found = proof_matrix()
    assert list(found) == list(OPERATORS)
    for cells in found.values():
        assert list(cells) == [name for name in FAMILIES if name not in NEAR]


def test_every_near_family_keeps_what_is_promised() -> None:
    found = re.search(r"<!-- near families -->\n(.*?)<!-- end of", ALGEBRA, re.DOTALL)
    assert found is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    assert {row[0]: row[1] for row in rows[2:]} == NEAR
    for family, _, exact, other, _, refused in rows[2:]:
        operators = [name for name, row in OPERATORS.items() if row.axis != "experts"]
        no = [name for name in operators if (name, family) in REFUSED]
        assert all(f"`{name}`" in refused and REFUSED[name, family] in refused for name in no)
        (num_exact, error), (num_other, change) = (cell.split(": ") for cell in (exact, other))
        assert int(num_exact) + int(num_other) + len(no) == len(operators)
        assert float(error) <= 1e-12
        assert float(change) >= 1e-3


@pytest.mark.parametrize("name", OPERATORS)
def test_the_proof_matrix_shows_what_is_promised(name: str) -> None:
    cells = proof_matrix().get(name)
    assert cells is not None, f"the proof matrix of docs/operators.md has no row of {name}"
    for family, cell in cells.items():
        if (name, family) in REFUSED:
            assert cell.startswith("refused")
        elif OPERATORS[name].preserves_function:
            assert float(cell.rstrip("*")) <= 1e-12
        else:
            assert float(cell.removeprefix("changes").rstrip("*")) >= 1e-3


def test_every_source_of_an_operator_is_in_the_docs() -> None:
    for operator in OPERATORS.values():
        for address in re.findall(r"https://[^\s;]+", operator.paper):
            assert f"({address})" in ALGEBRA, operator.name


def test_the_docs_are_ascii_and_linked() -> None:
    assert ALGEBRA.isascii()
    for name in ("operators.md", "training.md", *PAGES):
        assert f"(docs/{name})" in README
    for target in re.findall(r"\]\((?!https:)([^)#]+)", ALGEBRA):
        assert (ROOT / "docs" / target).exists(), target


def test_the_page_of_families_says_what_mergekit_made_of_each() -> None:
    """Where it fails, `python -m benchmarks.reach --peer DIR` writes the column."""
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert "| zero-depth | mergekit |" in page
    assert with_peer(page) == page
