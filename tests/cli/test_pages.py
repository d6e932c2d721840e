"""The pages of help: groups, examples, no cut sentence, and what a shell completes."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from hfgrow.train.recipe.files import shipped_recipes
from tests.cli.test_cli import COMMANDS
from tests.program import call_hfgrow, environment, program

PAGES = (*COMMANDS, "data prepare", "data check")


@pytest.mark.parametrize("command", ["", *PAGES])
def test_a_page_of_help_fits_80_columns_and_cuts_no_sentence(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = call_hfgrow(*command.split(), "--help").stdout
    assert max(map(len, page.splitlines())) <= 80
    # What the program itself leaves out, such as ./BASE-OPERATOR-..., stands before a bracket.
    assert not re.search(r"\w\.\.\.$", page, re.MULTILINE)
    assert not re.search(r"<(int|str|path|float|list)", page)


def test_the_first_page_opens_with_commands_that_run_as_they_stand(tmp_path: Path) -> None:
    page = call_hfgrow("--help").stdout
    begin = page[page.index("Start here:") : page.index("Grow (")]
    shown = re.findall(r"^  hfgrow (.*?)(?:  |$)", begin, re.MULTILINE)
    assert len(shown) == 5
    for words in shown[:2]:
        finished = call_hfgrow(*words.split(), "--quiet", cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr


def test_options_stand_in_groups_and_those_of_every_command_last() -> None:
    page = call_hfgrow("stack", "--help").stdout
    titles = re.findall(r"^(\w[\w ]*):$", page, re.MULTILINE)
    assert titles == ["Arguments", "Options", "Output", "Hub", "Every command", "Examples"]
    own = page[page.index("Options:") : page.index("Output:")]
    assert "--g " in own
    assert "--push" not in own
    assert "--out" not in own


@pytest.mark.parametrize("command", PAGES)
def test_the_help_of_every_command_ends_with_an_example(command: str) -> None:
    assert "\nExamples:\n  hfgrow " in call_hfgrow(*command.split(), "--help").stdout


COMPLETIONS = {
    "hfgrow stack Smol": "SmolLM2-135M",
    "hfgrow stack d": "demo",
    "hfgrow eval demo Tiny": "TinyLlama",
    "hfgrow train d": "demo-gstack",
    "hfgrow study p": "paper-main",
    "hfgrow recipes grad": "gradual-midas",
    "hfgrow operators z": "zero-depth",
    "hfgrow apply demo open": "openseek-mid",
    "hfgrow compare demo --ops stack,zero-d": "stack,zero-depth",
    "hfgrow stack demo --dtype b": "bfloat16",
    "hfgrow docs tr": "training",
}


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param(typed, marks=() if i % 3 == 0 else pytest.mark.slow)
        for i, typed in enumerate(COMPLETIONS)
    ],
)
def test_a_shell_completes_names(typed: str) -> None:
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    finished = subprocess.run(
        [program()],
        env=environment(**asked, _HFGROW_COMPLETE="complete_bash"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert COMPLETIONS[typed] in finished.stdout.split("\n")


def test_recipes_are_listed_with_what_they_are() -> None:
    finished = call_hfgrow("recipes")
    for name in (*shipped_recipes(), *shipped_recipes("studies"), *shipped_recipes("growths")):
        assert re.search(rf"^  {re.escape(name)}  +\w", finished.stdout, re.MULTILINE)
    document = json.loads(call_hfgrow("recipes", "--json").stdout)
    assert {"name": "paper-main", "command": "study"}.items() <= next(
        one for one in document["recipes"] if one["name"] == "paper-main"
    ).items()


def test_a_recipe_is_printed_as_it_was_written_and_copied(tmp_path: Path) -> None:
    written = shipped_recipes()["demo"].read_text(encoding="utf-8")
    assert call_hfgrow("recipes", "demo").stdout == written
    finished = call_hfgrow("recipes", "demo.yaml", "--copy", "mine.yaml", cwd=tmp_path)
    assert finished.stdout == "mine.yaml\n"
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == written
    assert "Next: hfgrow train mine.yaml --dry-run" in finished.stderr


def test_a_copy_goes_into_a_folder_under_its_name(tmp_path: Path) -> None:
    assert call_hfgrow("recipes", "width", "--copy", ".", cwd=tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["width.yaml"]


def test_a_copy_replaces_a_file_only_when_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    words = ("recipes", "demo", "--copy", "mine.yaml")
    refused = call_hfgrow(*words, cwd=tmp_path)
    assert refused.returncode == 7
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert call_hfgrow(*words, "--overwrite", cwd=tmp_path).returncode == 0


def test_a_misspelt_recipe_or_page_is_answered_with_the_nearest() -> None:
    for words, meant in (
        (("recipes", "paper-mian"), "paper-main"),
        (("docs", "trainig"), "training"),
    ):
        finished = call_hfgrow(*words)
        assert finished.returncode == 2
        assert f"Hint: did you mean {meant}?" in finished.stderr


def test_aliases_are_listed_the_users_own_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hfgrow").mkdir()
    (tmp_path / "hfgrow" / "aliases.toml").write_text('mine = "me/mine"\n')
    monkeypatch.setitem(os.environ, "XDG_CONFIG_HOME", str(tmp_path))
    lines = call_hfgrow("aliases").stdout.splitlines()
    assert any(re.match(r"mine +me/mine$", line) for line in lines)
    assert any(re.match(r"TinyLlama +TinyLlama/TinyLlama", line) for line in lines)


def test_the_documentation_is_read_without_the_repository() -> None:
    listed = call_hfgrow("docs").stdout
    assert "training" in listed
    page = Path(__file__).parents[2] / "docs" / "training.md"
    assert call_hfgrow("docs", "training").stdout == page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("short", "long"), [("bf16", "bfloat16"), ("fp32", "float32")])
def test_a_dtype_goes_by_its_short_name_too(short: str, long: str, tmp_path: Path) -> None:
    words = ("stack", "demo", "--g", "2", "--dry-run", "--json", "--dtype")
    one, other = (call_hfgrow(*words, name, cwd=tmp_path).stdout for name in (short, long))
    assert one == other


def test_a_terminal_gets_colours_and_a_file_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from cli import terminal

    assert call_hfgrow("operators", "stakc").stderr.startswith("Error: ")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal._coloured("Note: text") == "\x1b[33mNote:\x1b[0m text"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal._coloured("Note: text") == "Note: text"


def test_apply_takes_the_model_first_and_the_old_order_too(tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_text("- stack: {g: 2}\n")
    one = call_hfgrow("apply", "demo", "steps.yaml", "--dry-run", "--json", cwd=tmp_path)
    other = call_hfgrow("apply", "steps.yaml", "demo", "--dry-run", "--json", cwd=tmp_path)
    assert one.returncode == 0
    assert json.loads(one.stdout) == json.loads(other.stdout)


def test_a_model_is_pulled_into_a_folder(tmp_path: Path) -> None:
    finished = call_hfgrow("pull", "demo", "--out", "here", cwd=tmp_path)
    assert finished.stdout == "here\n"
    assert (tmp_path / "here" / "model.safetensors").is_file()
    assert not list((tmp_path / "here").glob("*.py"))
    templates = tmp_path / "here" / "additional_chat_templates"
    templates.mkdir()
    (templates / "tool.jinja").write_text("x")
    assert call_hfgrow("pull", "./here", "--out", "there", cwd=tmp_path).returncode == 0
    assert (tmp_path / "there" / "additional_chat_templates" / "tool.jinja").is_file()
    refused = call_hfgrow("pull", "demo", "--out", "here", cwd=tmp_path)
    assert refused.returncode == 7
    assert "--overwrite" in refused.stderr
    again = call_hfgrow("pull", "demo", "--out", "here", "--overwrite", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert not templates.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recipes", "--copy", "x.yaml"), "--copy copies one recipe, and none is named"),
        (("clean", ".", "--keep", "everything"), "--keep everything is nothing that clean removes"),
        (("study", "paper-main", "--seeds", "0,one"), "--seeds 0,one is no list of numbers"),
        (("verify", "grown", "--text", "nothing.txt"), "cannot read the text nothing.txt"),
        (("verify", "grown", "--text", "blank.txt"), "the text blank.txt is blank"),
    ],
    ids=" ".join,
)
def test_an_option_that_cannot_be_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "blank.txt").write_text(" \n")
    found = call_hfgrow(*words, cwd=tmp_path)
    assert found.returncode == 2
    assert said in found.stderr
