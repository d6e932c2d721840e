"""The output folder: what may be written, and that it appears complete or not at all.

Which folders may become an output: new ones, empty ones, and with --overwrite models.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfgrow.checkpoint.staging import check_target, staged, sweep_beside
from hfgrow.errors import ModelError, OutputError
from tests.program import call_hfgrow

HOLDER = """
import sys, time
from pathlib import Path
from hfgrow.checkpoint.staging import staged
with staged(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, text: str) -> None:
    (folder / "model.safetensors").write_text(text)


def fail_with(error: BaseException, target: Path) -> None:
    with staged(target, overwrite=True) as staging:
        fill(staging, "half")
        raise error


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_the_folder_appears_with_all_that_was_staged(target: Path) -> None:
    with staged(target) as staging:
        fill(staging, "new")
        assert not target.exists()
        assert staging.parent == target.parent
    assert (target / "model.safetensors").read_text() == "new"
    assert names(target.parent) == ["out"]


@pytest.mark.parametrize("error", [ModelError("x"), OSError(28, "full"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_error(target: Path, error: BaseException) -> None:
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        fail_with(error, target)
    assert names(target.parent) == []


@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "three renames"])
def test_an_old_folder_is_complete_until_the_new_one_is(
    target: Path, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_exchange:
        monkeypatch.setattr("hfgrow.checkpoint.staging.ctypes.CDLL", lambda *a, **k: object())
    target.mkdir()
    fill(target, "old")
    (target / "extra").touch()
    with staged(target, overwrite=True) as staging:
        fill(staging, "new")
        assert names(target) == ["extra", "model.safetensors"]
        assert (target / "model.safetensors").read_text() == "old"
    assert names(target) == ["model.safetensors"]
    assert (target / "model.safetensors").read_text() == "new"
    assert names(target.parent) == ["out"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(target: Path) -> None:
    def lose() -> None:
        with staged(target) as staging:
            fill(staging, "new")
            target.mkdir()
            fill(target, "theirs")

    with pytest.raises(OutputError, match="exists"):
        lose()
    assert (target / "model.safetensors").read_text() == "theirs"
    assert names(target.parent) == ["out"]


def test_the_old_folder_of_a_run_killed_between_two_renames_comes_back(target: Path) -> None:
    aside = target.parent / ".out.hfgrow-staging-old"
    aside.mkdir()
    fill(aside, "old")
    with pytest.raises(OutputError, match="exists"), staged(target):
        pass
    assert (target / "model.safetensors").read_text() == "old"
    assert names(target.parent) == ["out"]


def test_a_failed_second_rename_brings_the_old_folder_back(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfgrow.checkpoint.staging.ctypes.CDLL", lambda *a, **k: object())
    target.mkdir()
    fill(target, "old")
    rename = os.rename

    def second_fails(source: Path, destination: Path) -> None:
        if destination == target and not str(source).endswith("-old"):
            raise OSError(5, "Input/output error")
        rename(source, destination)

    monkeypatch.setattr("hfgrow.checkpoint.staging.os.rename", second_fails)
    with pytest.raises(OutputError), staged(target, overwrite=True) as staging:
        fill(staging, "new")
    assert (target / "model.safetensors").read_text() == "old"
    assert names(target.parent) == ["out"]


@pytest.mark.case("E7")
def test_an_old_folder_survives_a_failure(target: Path) -> None:
    target.mkdir()
    fill(target, "old")
    with pytest.raises(ModelError):
        fail_with(ModelError("x"), target)
    assert (target / "model.safetensors").read_text() == "old"
    assert names(target.parent) == ["out"]


def test_what_a_killed_run_left_is_swept(target: Path) -> None:
    stale = target.parent / ".out.hfgrow-staging"
    stale.mkdir()
    fill(stale, "half")
    (target.parent / ".out.hfgrow-lock").touch()
    with staged(target) as staging:
        assert names(staging) == []
        fill(staging, "new")
    assert names(target.parent) == ["out"]


def test_sweeping_a_folder_leaves_what_is_being_written(target: Path) -> None:
    stale = target.parent / ".old.hfgrow-staging"
    stale.mkdir()
    (target.parent / ".old.hfgrow-lock").touch()
    with staged(target) as staging:
        assert sweep_beside(target.parent, dry_run=True) == [stale]
        assert stale.is_dir()
        assert sweep_beside(target.parent) == [stale]
        assert not stale.exists()
        fill(staging, "new")
    assert names(target.parent) == ["out"]


def test_a_relative_output_is_refused_where_the_working_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OutputError, match="the working folder does not exist any more"):
        check_target(Path("out"), None, overwrite=False)
    check_target(tmp_path / "out", None, overwrite=False)


def test_a_link_in_place_of_the_staging_folder_is_not_followed(target: Path) -> None:
    precious = target.parent / "precious"
    precious.mkdir()
    fill(precious, "mine")
    (target.parent / ".out.hfgrow-staging").symlink_to(precious)
    with pytest.raises(OutputError), staged(target):
        pass
    assert (precious / "model.safetensors").read_text() == "mine"
    assert not target.exists()


@pytest.mark.case("E6")
def test_an_empty_folder_is_taken(target: Path) -> None:
    target.mkdir()
    check_target(target, None, overwrite=False)
    with staged(target) as staging:
        fill(staging, "new")
    assert names(target) == ["model.safetensors"]


@pytest.mark.case("E21")
def test_names_are_apart_without_case_and_nothing_is_a_link(
    sharded_base: Path, tmp_path: Path
) -> None:
    for name in ("LICENSE", "tokenizer.json", "tokenizer_config.json"):
        (sharded_base / name).write_text("{}")
    out = tmp_path / "out"
    words = ("stack", sharded_base, "--g", "2", "--max-shard-size", "60KB", "--out", out)
    assert call_hfgrow(*words).returncode == 0
    written = list(out.iterdir())
    assert len({path.name.casefold() for path in written}) == len(written) >= 10
    assert not any(path.is_symlink() for path in written)


@pytest.mark.case("E21")
def test_side_files_that_differ_by_case_alone_are_not_both_copied(
    base: Path, tmp_path: Path
) -> None:
    """A file system without case would take one for the other."""
    (base / "LICENSE.txt").write_text("one")
    (base / "LICENSE.TXT").write_text("two")
    if len(list(base.glob("LICENSE*"))) == 1:
        pytest.skip("this file system has no case")
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 3
    assert "LICENSE.TXT and LICENSE.txt" in finished.stderr
    assert not (tmp_path / "out").exists()


def test_missing_parents_are_made(tmp_path: Path) -> None:
    with staged(tmp_path / "a" / "b" / "out") as staging:
        fill(staging, "new")
    assert names(tmp_path / "a" / "b") == ["out"]


@pytest.mark.case("E13", "E14")
def test_a_second_writer_is_refused_at_once_and_takes_over_from_a_dead_one(target: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(target)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        started = time.monotonic()
        with pytest.raises(OutputError, match="another run is writing"), staged(target):
            pass
        assert time.monotonic() - started < 5
        holder.kill()
    with staged(target) as staging:
        fill(staging, "new")
    assert names(target.parent) == ["out"]


def test_two_targets_in_one_folder_do_not_meet(target: Path) -> None:
    with staged(target) as one, staged(target.parent / "other") as other:
        fill(one, "one")
        fill(other, "other")
    assert (target / "model.safetensors").read_text() == "one"
    assert names(target.parent) == ["other", "out"]


@pytest.mark.case("D8")
@pytest.mark.parametrize("name", ["with space", "m\u00f6del", "new\nline", "-x", "*", "x" * 200])
def test_odd_names_work(tmp_path: Path, name: str) -> None:
    with staged(tmp_path / name) as staging:
        fill(staging, "new")
    assert names(tmp_path) == [name]


@pytest.mark.case("D8")
def test_a_name_too_long_for_the_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="ENAMETOOLONG"), staged(tmp_path / ("x" * 300)):
        pass
    assert names(tmp_path) == []


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError), staged(tmp_path / "file" / "out"):
        pass


@pytest.mark.case("E8")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; see test_write_faults")
def test_a_parent_without_write_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="EACCES"), staged(tmp_path / "locked" / "out"):
        pass


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
