"""`hfgrow study`, as a newcomer types it: one small study, stopped, failed and taken up again."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgrow.checkpoint.locks import held
from hfgrow.lineage.ledger import ledger
from hfgrow.lineage.reading import read_manifest
from hfgrow.study.arms import load_study
from hfgrow.study.design import design
from hfgrow.study.runs import outcome_of
from tests.program import Finished, call_hfgrow, program
from tests.study.studies import tiny

pytestmark = pytest.mark.xdist_group("study")


def study(folder: Path, *words: str) -> Finished:
    return call_hfgrow("study", "mine.yaml", "--cpu", "--jobs", "2", *words, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study")
    (path / "mine.yaml").write_text(yaml.safe_dump(tiny(path)))
    return path


@pytest.fixture(scope="module")
def failed(folder: Path) -> Finished:
    """The study with a file where the run of an arm should be."""
    stranger = folder / "study-tiny-only" / "runs" / "scratch-seed0"
    stranger.parent.mkdir(parents=True)
    (stranger.parents[1] / "recipes").mkdir()
    stranger.write_text("somebody's")
    finished = study(folder)
    stranger.unlink()
    return finished


@pytest.fixture(scope="module")
def done(folder: Path, failed: Finished) -> Finished:
    """The same study, run again with nothing in its way."""
    return study(folder)


@pytest.fixture(scope="module")
def out(folder: Path, done: Finished) -> Path:
    return folder / "study-tiny-only"


def test_an_arm_that_fails_is_told_and_the_others_go_on(failed: Finished, folder: Path) -> None:
    assert failed.returncode == 8, failed.stderr
    assert "scratch-seed0: failed" in failed.stderr
    assert "is no folder of a run" in failed.stderr
    assert "stack-seed0: done" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_what_is_finished_is_not_done_again(done: Finished, out: Path) -> None:
    assert (done.returncode, done.stdout) == (0, "study-tiny-only/report.html\n"), done.stderr
    assert "2 of 3 runs are finished already" in done.stderr
    assert "scratch-seed0: done" in done.stderr
    assert "stack-seed0" not in done.stderr


def test_every_evaluation_is_in_the_results_with_what_it_had_cost(out: Path) -> None:
    content = json.loads((out / "results.json").read_text())
    runs = {run["arm"]: run for run in content["runs"]}
    assert {run["status"] for run in runs.values()} == {"done"}
    points = runs["stack"]["evaluations"]
    assert [p["tokens"] for p in points] == [0, 512, 1024, 1024, 1536, 2048, 2560, 3072]
    assert [p["when"] for p in points[2:4]] == ["end", "start"]
    assert points[-1]["tokens_after_base"] == 2048
    assert 0 < points[-1]["flops_after_base"] < points[-1]["flops"]
    for run in runs.values():
        final = out / "runs" / f"{run['arm']}-seed0" / "final"
        manifest = read_manifest(final)
        assert manifest is not None
        assert ledger(manifest).total.flops == pytest.approx(run["evaluations"][-1]["flops"])


def test_the_grown_arm_begins_where_its_base_ended(out: Path) -> None:
    base, grown = (
        (out / "runs" / name / "metrics.jsonl").read_text().splitlines()
        for name in ("base-small-seed0", "stack-seed0")
    )
    assert grown[: len(base)] == base
    assert (out / "tokens").is_dir()
    assert (out / "runs/stack-seed0/tokens").is_symlink()


def test_the_reports_say_the_same_and_are_escaped(out: Path) -> None:
    text, html = (out / "report.md").read_text(), (out / "report.html").read_text()
    for word in (
        "scratch",
        "stack",
        "better",
        "with one seed",
        "token ratio",
        "text.txt",
        "Held out",
        "torch 2",
    ):
        assert word.casefold() in text.casefold(), word
        assert word.casefold() in html.casefold(), word
    assert "<b>growing" not in html
    assert "&lt;b&gt;growing&lt;/b&gt; help? | 1 &amp; 2" in html
    assert "\\<b\\>growing" in text


def test_the_html_needs_nothing_but_itself(out: Path) -> None:
    html = (out / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 4
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert not re.search(r"https?://", html)
    for name in re.findall(r"\]\((plots/[^)]+)\)", (out / "report.md").read_text()):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_a_report_can_be_made_without_training(folder: Path, out: Path) -> None:
    (out / "report.html").unlink()
    again = study(folder, "--report-only", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["summary"]["reference"] == "scratch"
    assert (out / "report.html").is_file()


@pytest.mark.parametrize("words", [(), ("--report-only",)])
def test_another_recipe_in_the_same_folder_is_refused(
    folder: Path, out: Path, words: tuple[str, ...]
) -> None:
    before = (out / "results.json").read_bytes()
    refused = study(folder, "--set", "train.learning_rate=1", *words)
    assert refused.returncode == 2
    assert (
        "begun with another recipe: stages.0.train.learning_rate was 0.01, is 1" in refused.stderr
    )
    assert (out / "results.json").read_bytes() == before


def test_a_narrower_choice_reports_all_that_lies_in_the_folder(folder: Path, out: Path) -> None:
    again = study(folder, "--arms", "stack")
    assert again.returncode == 0, again.stderr
    assert "2 of 2 runs are finished already" in again.stderr
    content = json.loads((out / "results.json").read_text())
    assert {run["arm"] for run in content["runs"]} == {"scratch", "stack"}
    assert content["summary"]["reference"] == "scratch"


def test_where_the_runs_ran_is_what_they_were_begun_with(out: Path) -> None:
    (ran,) = json.loads((out / "results.json").read_text())["ran"]
    assert ran["command"] == "hfgrow study mine.yaml --cpu --jobs 2"
    assert set(ran["runs"]) == {"base-small-seed0", "stack-seed0", "scratch-seed0"}
    assert ran["machine"]["num_cores"] >= 1


def test_another_text_under_the_same_name_is_refused(folder: Path, out: Path) -> None:
    text = folder / "text.txt"
    before = text.read_text()
    text.write_text(before.replace("word", "other"))
    refused = study(folder, "--seeds", "1", "--arms", "scratch")
    text.write_text(before)
    assert refused.returncode == 2, refused.stderr
    assert "is another text than the runs in study-tiny-only read" in refused.stderr
    assert not (out / "runs" / "scratch-seed1").exists()


def test_a_study_can_be_moved(folder: Path, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "moved", symlinks=True)
    again = study(folder, "--out", str(tmp_path / "moved"))
    assert again.returncode == 0, again.stderr
    assert "3 of 3 runs are finished already" in again.stderr


def test_a_folder_that_another_study_writes_is_refused(folder: Path, out: Path) -> None:
    with held(out, hint=""):
        refused = study(folder)
    assert refused.returncode == 7
    assert "another run is writing study-tiny-only" in refused.stderr


def test_a_dry_run_says_what_it_will_take_and_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny(tmp_path)))
    shown = study(tmp_path, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    for word in (
        "3 runs, 2 at a time",
        "stack-seed0",
        "2,048",
        "FLOPs",
        " a run (measured on ",
    ):
        assert word in shown.stdout
    assert not (tmp_path / "study-tiny-only").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("in_a_terminal")
def test_a_stopped_study_stops_its_runs_and_goes_on(tmp_path: Path, number: int) -> None:
    content: dict[str, Any] = tiny(tmp_path, base_tokens=128_000)
    content["evaluation"]["every_tokens"] = 16_384
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    words = [program(), "study", "mine.yaml", "--cpu", "--arms", "stack"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "study-tiny-only/runs/base-small-seed0/metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > 2000):
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert list(metrics.parent.glob("checkpoints/step-*"))
    size = metrics.stat().st_size
    time.sleep(1)
    assert metrics.stat().st_size == size
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    log = metrics.parent.with_name("base-small-seed0.log").read_text()
    assert "Going on from step" in log


@pytest.mark.slow
def test_the_report_renders_in_a_browser(out: Path, tmp_path: Path) -> None:
    browsers = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
    browser = next(filter(None, map(shutil.which, browsers)), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    picture = tmp_path / "report.png"
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,3000"]
    words += [f"--user-data-dir={tmp_path}/profile", f"--screenshot={picture}"]
    subprocess.run(
        [*words, (out / "report.html").absolute().as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert picture.stat().st_size > 50_000


def test_a_ledger_that_says_something_else_than_the_plan_is_a_failure(
    folder: Path, out: Path
) -> None:
    plan = design(load_study(folder / "mine.yaml"), out)
    job = next(job for job in plan.arms if job.arm == "stack")
    assert outcome_of(job).status == "done"
    last = job.costs[-1]
    for wrong in (replace(last, flops=1.0), replace(last, exact_flops=1.0)):
        outcome = outcome_of(replace(job, costs=(*job.costs[:-1], wrong)))
        assert outcome.status == "failed"
        assert "FLOPs instead of" in outcome.message
