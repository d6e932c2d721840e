"""The folder of a study: what it is, what lies in it, and what is left alone."""

import json
from pathlib import Path

import pytest

from hfgrow.errors import OutputError, UsageError
from hfgrow.study.design import Design, begun, selected
from hfgrow.study.folder import STUDY, StudyFolder
from tests.program import call_hfgrow
from tests.study.made_up import planned


@pytest.fixture
def plan(tmp_path: Path) -> Design:
    return planned(tmp_path)


@pytest.fixture
def folder(plan: Design, tmp_path: Path) -> StudyFolder:
    """A study of which scratch and its seed 0 were begun."""
    found = StudyFolder(tmp_path / "out")
    with found.taken_up():
        for job in plan.jobs:
            if job.name in ("scratch-seed0", "base-small-seed0", "stack-seed0"):
                job.folder.mkdir()
                found.recipe_of(job).write_text(job.recipe.to_yaml())
    return found


def test_somebodys_folder_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(OutputError, match="is no study"), StudyFolder(tmp_path).taken_up():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "mine"


def test_a_study_is_taken_up_again(folder: StudyFolder) -> None:
    with folder.taken_up():
        assert folder.places() == {}


def test_a_folder_without_a_run_is_not_reported(tmp_path: Path, folder: StudyFolder) -> None:
    folder.check_is_study()
    with pytest.raises(UsageError, match="holds no run of a study"):
        StudyFolder(tmp_path / "typo").check_is_study()
    assert not (tmp_path / "typo").exists()


def test_seeds_of_known_arms_are_found(folder: StudyFolder) -> None:
    (folder.runs / "scratch-seed7").mkdir()
    (folder.runs / "other-seed9").mkdir()
    assert folder.seeds(["scratch", "stack"]) == {0, 7}


def test_what_was_begun_is_reported_and_what_was_chosen(plan: Design, folder: StudyFolder) -> None:
    assert folder.is_study
    names = {job.name for job in begun(plan, ["stack-seed1"]).jobs}
    assert names == {
        *("base-small-seed0", "scratch-seed0", "stack-seed0"),
        *("base-small-seed1", "stack-seed1"),
    }


def test_seeds_are_chosen_like_arms(plan: Design) -> None:
    chosen = selected(plan, frozenset({"stack"}), frozenset({1}))
    assert [job.name for job in chosen.jobs] == ["base-small-seed1", "stack-seed1"]


def test_a_recipe_is_compared_by_what_it_says(
    plan: Design, folder: StudyFolder, tmp_path: Path
) -> None:
    folder.check_unchanged(plan.jobs)
    moved = folder.path.rename(tmp_path / "elsewhere")
    StudyFolder(moved).check_unchanged(planned_at(tmp_path, moved).jobs)


def planned_at(tmp_path: Path, out: Path) -> Design:
    from hfgrow.study.design import design

    return design(planned(tmp_path).study, out)


def test_a_place_is_noted_once(folder: StudyFolder) -> None:
    here, there = ({"command": "x", "machine": {"num_cores": n}} for n in (1, 2))
    for place in (here, here, there):
        folder.note("scratch-seed0", place)
    assert folder.places() == {"scratch-seed0": [here, there]}
    assert json.loads((folder.path / STUDY).read_text())["runs"] == folder.places()


@pytest.mark.parametrize("words", [("--dry-run",), ("--out", "typo")])
def test_a_report_that_cannot_be_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    planned(tmp_path)
    found = call_hfgrow("study", "mine.yaml", "--report-only", "--cpu", *words, cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("Error: ")
    assert not (tmp_path / "typo").exists()
