"""`hfgrow eval --tasks`: results of lm-eval in lineage and card, of the weights they are of."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hfgrow.errors import ModelError, TrainingError
from hfgrow.growth.lm_eval import read_results
from hfgrow.lineage.card_sections import model_index
from hfgrow.lineage.reading import parse_manifest
from hfgrow.lineage.records import Benchmark
from tests.checkpoints import MakeCheckpoint
from tests.hub_server.cards import metadata, problems
from tests.lm_eval_results import RESULTS, STAND_IN
from tests.program import call_hfgrow
from tests.trained import manifest_in


@pytest.fixture
def place(tmp_path: Path, make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, a grown model, and a stand-in for lm-eval."""
    shutil.copytree(make_checkpoint(), tmp_path / "base")
    package = tmp_path / "lib" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    results = f"RESULTS = {json.dumps(RESULTS)!r}\n"
    (package / "__main__.py").write_text(results + STAND_IN)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    assert call_hfgrow("stack", "base", "--g", "2", "--out", "grown", cwd=tmp_path).returncode == 0
    return tmp_path


def test_results_are_read_as_the_harness_writes_them() -> None:
    found = list(read_results(RESULTS))
    assert found[0] == Benchmark(
        task="arc_challenge",
        metric="acc",
        value=0.5,
        num_samples=12,
        num_fewshot=25,
        harness="lm-eval 0.4.13",
        stderr=0.15075567228888181,
        version="1.0",
        dataset="allenai/ai2_arc",
        config="ARC-Challenge",
        split="test",
    )
    assert [(one.task, one.metric) for one in found[1:]] == [
        ("arc_challenge", "acc_norm"),
        ("lambada_openai", "perplexity"),
        ("lambada_openai", "acc"),
        ("mine", "mcc"),
        ("mine", "exact_match,strict-match"),
    ]
    assert (found[2].stderr, found[3].stderr) == (None, None)
    assert (found[2].num_samples, found[2].num_all_samples) == (4, 5153)
    assert (found[4].dataset, found[4].value) == (None, -0.5)


@pytest.mark.parametrize("key", ["results", "configs", "n-samples", "lm_eval_version"])
def test_a_file_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(TrainingError, match="not understood"):
        list(read_results({name: value for name, value in RESULTS.items() if name != key}))


def test_results_go_into_lineage_and_card_as_the_hub_has_them(place: Path) -> None:
    words = ("eval", "grown", "--tasks", "arc_challenge,mine", "--device", "cpu", "--json")
    found = json.loads(call_hfgrow(*words, cwd=place).stdout)["tasks"]
    assert found[0]["recorded"] is True
    assert len(manifest_in(place / "grown").benchmarks) == 6
    text = (place / "grown" / "README.md").read_text()
    assert problems(metadata(text)) == []
    card: Any = ModelCard(text).data
    assert card.model_name == "grown"
    assert card.eval_results is not None
    first = card.eval_results[0]
    assert (first.dataset_type, first.dataset_config) == ("allenai/ai2_arc", "ARC-Challenge")
    assert (first.metric_type, first.metric_name) == ("acc", "acc, 25-shot")
    # A task of local files is in the text, where nothing has to lie on the Hub, and so is a look at
    # some examples, which is no claim.
    assert {result.dataset_type for result in card.eval_results} == {"allenai/ai2_arc"}
    assert "| `mine` | `mcc` | -0.5000 |" in text
    assert "| `lambada_openai` | `acc` | 0.7500 | - | 0 | 4 of 5,153 |" in text
    # The same tasks again replace what was there.
    assert call_hfgrow(*words, cwd=place).returncode == 0
    assert len(manifest_in(place / "grown").benchmarks) == 6
    assert call_hfgrow("verify", "grown", cwd=place).returncode == 0


def test_a_look_at_some_examples_does_not_replace_results_of_all(place: Path) -> None:
    words = ("eval", "grown", "--tasks", "arc_challenge", "--json")
    assert json.loads(call_hfgrow(*words, cwd=place).stdout)["tasks"][0]["recorded"] is True
    before, card = manifest_in(place / "grown"), (place / "grown" / "README.md").read_text()
    looked = json.loads(call_hfgrow(*words, "--limit", "2", cwd=place).stdout)["tasks"][0]
    assert looked["recorded"] is False
    assert looked["benchmarks"][0]["num_samples"] == 2
    kept = {b for b in manifest_in(place / "grown").benchmarks if b.task != "lambada_openai"}
    assert kept == {b for b in before.benchmarks if b.task != "lambada_openai"}
    # Where there were only some examples, some others may replace them.
    assert "2 of 5,153" in (place / "grown" / "README.md").read_text()
    assert "4 of 5,153" in card
    said = call_hfgrow("eval", "grown", "--tasks", "mine", "--limit", "1", cwd=place).stderr
    assert "results of all examples of arc_challenge, mine, which those of --limit" in said


def test_what_was_measured_is_printed_where_a_later_model_fails(place: Path) -> None:
    (place / "base" / "too-large").touch()
    words = ("eval", "grown", "base", "--tasks", "mine")
    found = call_hfgrow(*words, cwd=place)
    assert found.returncode == 8
    assert found.stdout.splitlines()[0].split() == ["task", "metric", "grown"]
    assert "Hint: what it said before that stands above" in found.stderr
    error = json.loads(call_hfgrow(*words, "--json", cwd=place).stdout)["error"]
    assert [model["model"] for model in error["tasks"]] == ["grown"]
    assert "run again, not quiet" in error["hint"]


def test_a_text_that_cannot_be_measured_is_found_before_any_task_runs(place: Path) -> None:
    words = ("eval", "grown", "--tasks", "mine", "--text", "demo", "--sequence-length", "9999")
    found = call_hfgrow(*words, cwd=place)
    assert (found.returncode, "Running" in found.stderr) == (2, False)


def test_what_grows_from_a_measured_model_starts_without_results(place: Path) -> None:
    """G10."""
    assert call_hfgrow("eval", "grown", "--tasks", "paper", cwd=place).returncode == 0
    done = call_hfgrow("stack", "grown", "--g", "2", "--out", "child", cwd=place)
    assert done.returncode == 0
    child = manifest_in(place / "child")
    assert (len(child.chain), child.benchmarks) == (2, ())
    assert "model-index" not in (place / "child" / "README.md").read_text()
    assert "lm-eval" not in (place / "child" / "hfgrow.json").read_text()


def test_a_model_that_is_not_ours_is_left_as_it_is(place: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (place / "base").iterdir())
    found = call_hfgrow("eval", "grown", "--with-base", "--tasks", "mine", cwd=place)
    assert "base is no folder of hfgrow's" in found.stderr
    assert "mine" in found.stdout
    after = sorted((path.name, path.stat().st_mtime_ns) for path in (place / "base").iterdir())
    assert after == before


def test_a_card_that_somebody_edited_stays(place: Path) -> None:
    card = place / "grown" / "README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    found = call_hfgrow("eval", "grown", "--tasks", "mine", cwd=place)
    assert "was edited and stays" in found.stderr
    assert card.read_text().endswith("\nMine.\n")
    assert manifest_in(place / "grown").benchmarks


def test_weights_that_changed_are_not_measured(place: Path) -> None:
    weights = place / "grown" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    manifest = place / "grown" / "hfgrow.json"
    # As after a push, when every sha256 is known.
    content_json = json.loads(manifest.read_text())
    content_json["chain"][0]["result"]["files"]["model.safetensors"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content_json))
    assert call_hfgrow("eval", "grown", "--tasks", "mine", cwd=place).returncode == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("grown", "--tasks", "missing"), 2, "no task missing"),
        (("grown", "--tasks", "offline"), 5, "Couldn't reach"),
        (("grown", "--tasks", ","), 2, "names none"),
        (("grown", "--tasks", "mine", "--include-path", "nowhere"), 2, "no folder nowhere"),
        (("grown", "--text", "demo", "--limit", "3"), 2, "--limit is of --tasks"),
        (("grown", "--text", "demo", "--batch-size", "4"), 2, "--batch-size is of --tasks"),
        (("grown", "--tasks", "mine", "--split", "test"), 2, "--split is of --text"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(place: Path, words: tuple[str, ...], code: int, said: str) -> None:
    found = call_hfgrow("eval", *words, cwd=place)
    assert (found.returncode, found.stdout) == (code, "")
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert said in line


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_harness_the_command_to_install_it_is_named(base: Path) -> None:
    found = call_hfgrow("eval", base, "--tasks", "paper")
    assert found.returncode == 2
    assert f"Hint: {sys.executable} -m pip install 'hfgrow[eval]'" in found.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"value": "0.5"},
        {"value": True},
        {"task": "a|b"},
        {"metric": "`"},
        {"harness": "[x](y)"},
        {"dataset": "../x"},
        {"num_samples": 0},
        {"split": "a b"},
    ],
    ids=str,
)
def test_results_of_strangers_are_read_as_hostile(place: Path, change: dict[str, Any]) -> None:
    content = json.loads((place / "grown" / "hfgrow.json").read_text())
    good = next(iter(read_results(RESULTS))).to_json()
    assert parse_manifest({**content, "benchmarks": [good]}).benchmarks
    with pytest.raises(ModelError):
        parse_manifest({**content, "benchmarks": [good | change]})


def test_no_result_is_no_index() -> None:
    assert model_index((), "model") == []


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm-eval")
def test_the_harness_itself_measures_a_task_of_local_files(tmp_path: Path) -> None:
    rows = [
        {"question": "One and one are", "a": "two", "b": "zq xv", "label": i % 2} for i in (0, 1)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(tmp_path / "rows.jsonl")}},
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "doc_to_text": "{{question}}",
        "doc_to_target": "label",
        "doc_to_choice": "{{[a, b]}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(json.dumps(task))
    done = call_hfgrow("stack", "demo", "--g", "2", "--out", "grown", cwd=tmp_path)
    assert done.returncode == 0
    words = ("eval", "grown", "--tasks", "tiny", "--include-path", "tasks", "--device", "cpu")
    found = call_hfgrow(*words, "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stdout
    (result,) = json.loads(found.stdout)["tasks"][0]["benchmarks"]
    assert (result["metric"], result["value"], result["num_samples"]) == ("acc", 0.5, 2)


def test_examples_and_tasks_of_ones_own_reach_the_harness(place: Path) -> None:
    (place / "own").mkdir()
    words = ("--tasks", "mine", "--num-fewshot", "3", "--include-path", "own")
    finished = call_hfgrow("eval", "grown", *words, cwd=place)
    assert finished.returncode == 0, finished.stderr
    (line,) = [one for one in finished.stderr.splitlines() if one.startswith("measured ")]
    asked = line.split()
    assert asked[asked.index("--num_fewshot") + 1] == "3"
    assert Path(asked[asked.index("--include_path") + 1]) == (place / "own").resolve()
