"""Which folders may become an output: new ones, empty ones, and with --overwrite models."""

from pathlib import Path

import pytest

from hfgrow.checkpoint.staging import check_target
from hfgrow.errors import OutputError


def fill(folder: Path, text: str) -> None:
    (folder / "model.safetensors").write_text(text)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize("held", ["notes.txt", ".git"])
def test_overwrite_replaces_a_model_and_nothing_else(target: Path, held: str) -> None:
    target.mkdir()
    (target / held).touch()
    with pytest.raises(OutputError, match="holds no model"):
        check_target(target, None, overwrite=True)


def test_a_folder_above_the_working_folder_is_never_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / "sub").mkdir(parents=True)
    (tmp_path / "project" / "config.json").touch()
    monkeypatch.chdir(tmp_path / "project" / "sub")
    with pytest.raises(OutputError, match="cannot be an output folder"):
        check_target(tmp_path / "project", None, overwrite=True)


@pytest.mark.case("E6")
@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "filled folder"])
def test_an_output_that_exists_is_refused(target: Path, kind: str) -> None:
    elsewhere = target.parent / "elsewhere"
    match kind:
        case "file":
            target.touch()
        case "link":
            elsewhere.mkdir()
            target.symlink_to(elsewhere)
        case "dangling link":
            target.symlink_to(elsewhere)
        case _:
            target.mkdir()
            fill(target, "old")
    with pytest.raises(OutputError, match=r"out exists|folder .* exists"):
        check_target(target, None, overwrite=False)


@pytest.mark.case("E6")
@pytest.mark.parametrize("kind", ["file", "link"])
def test_only_a_folder_is_ever_overwritten(target: Path, kind: str) -> None:
    if kind == "file":
        target.touch()
    else:
        (target.parent / "elsewhere").mkdir()
        target.symlink_to(target.parent / "elsewhere")
    with pytest.raises(OutputError, match="not a folder"):
        check_target(target, None, overwrite=True)


@pytest.mark.case("D7")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("out", ["/", ".", "~", "..", "base", "base/out", "base/a/b", "link", "up"])
def test_places_that_must_not_be_replaced_are_refused(
    tmp_path: Path, out: str, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D7: the root, the working folder, home, the base, inside it, around it, by links too."""
    base = tmp_path / "up" / "work" / "base"
    base.mkdir(parents=True)
    (tmp_path / "up" / "work" / "link").symlink_to(base)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "up" / "work")
    target = Path(out).expanduser() if out != "up" else tmp_path / "up"
    with pytest.raises(OutputError):
        check_target(target, base, overwrite=overwrite)
    assert base.is_dir()


@pytest.mark.case("D7")
def test_a_folder_around_home_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    with pytest.raises(OutputError, match="cannot be an output folder"):
        check_target(tmp_path / "home", None, overwrite=True)
