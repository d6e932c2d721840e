"""`hfgrow learn` from end to end: what it writes and tells, what it refuses.

A learned model on the Hub: pushed with its maps, made again from them on another machine.

Growth by learned maps as a stage of a run: learned from the text of the run.
"""

import json
import re
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import hfgrow
from hfgrow.errors import UsageError
from hfgrow.lineage.ledger import ledger
from hfgrow.lineage.reading import read_manifest
from hfgrow.train.recipe.recipe import recipe_of
from tests.data.corpora import write_stories
from tests.hub_server import Hub
from tests.hub_server.machine import Machine
from tests.program import Finished, call_hfgrow
from tests.train import runs

SHORT = ("--steps", "2", "--batch-tokens", "64", "--sequence-length", "32")


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stories(tmp_path_factory.mktemp("text") / "stories.txt", 40)


def learn(*words: str | Path, cwd: Path, code: int = 0) -> Finished:
    finished = call_hfgrow("learn", *words, cwd=cwd)
    assert finished.returncode == code, finished.stderr
    return finished


def document_of(finished: Finished) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


def test_the_command_learns_writes_verifies_and_reproduces(stories: Path, tmp_path: Path) -> None:
    where = ("demo", "--g", "2", "--width-g", "2", "--data", stories, *SHORT)
    finished = learn(*where, "--lr", "0.01", "--verify", cwd=tmp_path)
    assert finished.stdout == "demo-learn-g2-wg2-fp\n"
    out = tmp_path / "demo-learn-g2-wg2-fp"
    (step,) = json.loads((out / "hfgrow.json").read_text())["chain"][0]["steps"]
    told = step["arguments"]
    assert step["operator"] == "learn"
    assert step["layer_map"][:2] == [[0, "learned"], [0, "learned"]]
    assert (told["init"], told["steps"], told["lr"], told["seed"]) == ("fp", 2, 0.01, 0)
    assert told["text"] == "stories.txt"
    assert len(told["text_sha256"]) == 64
    assert (out / told["maps"]).is_file()
    assert step["preserves_function"] is (told["kept_step"] == 0)
    assert told["loss"] <= told["initial_loss"]
    losses = f"{told['initial_loss']:.4f} -> {told['loss']:.4f} nats per token"
    assert (
        f"  learned   held-out loss {losses}, maps of step {told['kept_step']}\n" in finished.stderr
    )
    assert f"--maps {told['maps'][:21]}...\n" in finished.stderr
    for command in ("verify", "reproduce"):
        done = call_hfgrow(command, out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    # The same maps make the same weights, without text.
    again = ("demo", "--g", "2", "--width-g", "2", "--maps", out / told["maps"], "--out", "again")
    learn(*again, cwd=tmp_path)
    weights = "model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (out / weights).read_bytes()
    assert "mixed by learned maps" in (out / "README.md").read_text()


def test_a_row_of_no_number_that_no_text_touches_is_found_before_the_first_step(
    stories: Path, tmp_path: Path
) -> None:
    demo = Path(hfgrow.__file__).parent / "demo"
    base = Path(shutil.copytree(demo, tmp_path / "base", ignore=shutil.ignore_patterns("*.py")))
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][-1] = float("inf")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    done = learn(base, "--g", "2", "--data", stories, *SHORT, cwd=tmp_path, code=3)
    assert "model.embed_tokens.weight holds" in done.stderr
    assert "step" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_an_init_that_is_kept_is_proved_to_keep_the_function(stories: Path, tmp_path: Path) -> None:
    words = ("demo", "--layers", "9", "--data", stories, "--steps", "0", "--verify", "--json")
    document = document_of(learn(*words, "--out", "kept", cwd=tmp_path))
    assert document["preserves_function"] is True
    assert document["measured"]["max_abs_dlogit"] == 0


def test_what_the_held_out_loss_is_of_is_told(stories: Path, tmp_path: Path) -> None:
    words = ("demo", "--g", "2", "--steps", "0", "--sequence-length", "32")
    part = learn(*words, "--data", stories, cwd=tmp_path).stderr
    assert re.search(r"Step 0 of 0: held-out loss [\d.]+ of \d+ tokens of stories.txt\n", part)


@pytest.mark.slow
def test_of_several_held_out_texts_each_is_named_with_how_much_of_it(
    stories: Path, tmp_path: Path
) -> None:
    words = ("demo", "--g", "2", "--steps", "0", "--sequence-length", "32")
    long = write_stories(tmp_path / "long.txt", 300, first=100)
    named = ("--validation", stories, "--validation", long, "--out", "two")
    two = learn(*words, "--data", stories, *named, cwd=tmp_path).stderr
    of = r"[\d,]+ tokens of stories.txt and the first 32,768 tokens of long.txt\n"
    assert re.search(rf"held-out loss [\d.]+ of {of}", two)


def test_sequences_that_a_small_step_makes_short_are_noted(stories: Path, tmp_path: Path) -> None:
    words = ("demo", "--g", "2", "--data", stories, "--steps", "1")
    short = learn(*words, "--batch-tokens", "10", cwd=tmp_path).stderr
    assert "Note: a step of --batch-tokens 10 is one sequence, so sequences have 10 tokens" in short
    plain = learn(*words, *SHORT[2:], "--out", "asked", cwd=tmp_path).stderr
    assert "is one sequence" not in plain


def test_a_dry_run_plans_and_says_the_cost_and_reads_no_text(tmp_path: Path) -> None:
    words = ("demo", "--g", "2", "--data", "demo", "--dry-run")
    document = document_of(learn(*words, "--json", cwd=tmp_path))
    assert document["num_hidden_layers"] == {"base": 6, "grown": 12}
    told = learn(*words, cwd=tmp_path).stderr
    assert re.search(
        r"^Learning on 1,638,400 tokens, \S+ FLOPs: about .* on free cores", told, re.M
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "wrong"),
    [
        (("--g", "2"), 2, "no text to learn from"),
        (("--data", "{text}"), 2, "no target"),
        (("--g", "2", "--data", "nowhere.txt"), 2, "no file or folder"),
        (("--g", "2", "--data", "{text}", "--steps", "-1"), 2, "--steps must be"),
        (("--g", "2", "--data", "{text}", "--lr", "0"), 2, "--lr must be"),
        (("--g", "2", "--data", "{text}", "--lr", "nan"), 2, "--lr must be"),
        (("--g", "2", "--data", "{text}", "--seed", "-1"), 2, "--seed must be"),
        (("--g", "2", "--data", "{text}", "--init", "best"), 2, "--init"),
        (
            ("--g", "2", "--data", "{text}", "--sequence-length", "513"),
            2,
            "Hint: --sequence-length 512",
        ),
        (
            ("--g", "2", "--data", "{text}", "--batch-tokens", "100", "--sequence-length", "64"),
            2,
            "no multiple",
        ),
        (("--g", "2", "--data", "{text}", "--repo", "a/b"), 2, "says how to push"),
        (("--g", "2", "--data", "{text}", "--out", "{full}"), 7, "exists"),
        (("--g", "2", "--data", "{tiny}"), 8, "too few to hold out"),
        (("--g", "2", "--data", "{text}", "--maps", "x"), 2, "--maps learns nothing"),
        (("--g", "2", "--maps", "model.safetensors"), 3, "not the name of a file"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    words: tuple[str, ...], code: int, wrong: str, stories: Path, tmp_path: Path
) -> None:
    full, here, tiny = tmp_path / "full", tmp_path / "here", tmp_path / "tiny.txt"
    full.mkdir()
    here.mkdir()
    (full / "file").write_text("mine")
    tiny.write_text("a few words\n")
    named = [word.format(text=stories, full=full, tiny=tiny) for word in words]
    finished = learn("demo", *named, cwd=here, code=code)
    assert wrong in finished.stderr
    assert finished.stdout == ""
    assert not list(here.iterdir())


@pytest.mark.case("E5", "E8")
def test_an_output_that_cannot_be_written_is_refused_before_the_learning(
    stories: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    words = ("demo", "--g", "2", "--data", stories, *SHORT)
    finished = learn(*words, "--out", "file/out", cwd=tmp_path, code=7)
    assert "cannot write to" in finished.stderr
    assert "held-out loss" not in finished.stderr


@pytest.mark.case("E2")
def test_maps_that_were_learned_outlive_an_output_that_does_not_fit(
    stories: Path, tmp_path: Path
) -> None:
    words = ("demo", "--g", "2", "--data", stories, *SHORT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        finished = learn(*words, cwd=tmp_path, code=7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    (kept,) = tmp_path.iterdir()
    assert f"--maps {kept} instead" in finished.stderr
    learn("demo", "--g", "2", "--maps", kept, "--out", "again", cwd=tmp_path)


TARGET = "alice/learned"


@pytest.mark.slow
def test_a_learned_model_is_made_again_from_what_was_pushed(tmp_path: Path) -> None:
    text = write_stories(tmp_path / "stories.txt", 40)
    words = ("demo", "--layers", "8", "--data", str(text), "--steps", "1", "--lr", "0.001")
    size = ("--batch-tokens", "64", "--sequence-length", "32")
    with Hub() as hub:
        one = Machine(hub, tmp_path / "one")
        finished = one.hfgrow("learn", *words, *size, "--out", "g", "--push", "--repo", TARGET)
        assert finished.returncode == 0, finished.stderr
        (maps,) = (one.cwd / "g").glob("learned_maps-*.safetensors")
        other = Machine(hub, tmp_path / "other")
        finished = other.hfgrow("reproduce", TARGET)
        assert finished.returncode == 0, finished.stderr
        assert "equal" in finished.stdout
        assert other.left_behind() == []
        finished = other.hfgrow("pull", TARGET)
        assert finished.returncode == 0, finished.stderr
        assert (Path(finished.stdout.strip()) / maps.name).read_bytes() == maps.read_bytes()


LEARN: dict[str, Any] = {"operator": "learn", "g": 2, "init": "stack", "steps": 4}


def learning(folder: Path, **learn: Any) -> dict[str, Any]:
    return runs.recipe(folder, stages=[runs.GROWN[0], {"grow": LEARN | learn}, runs.GROWN[2]])


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The recipe of a run that learned maps and ended."""
    recipe = learning(tmp_path_factory.mktemp("learned"))
    runs.carry(recipe)
    return recipe


def test_a_stage_learns_its_maps_from_the_text_of_the_run(learned: dict[str, Any]) -> None:
    recipe = learned
    manifest = read_manifest(Path(recipe["output"], "final"))
    assert manifest is not None
    growth = manifest.last_growth
    assert growth is not None
    told = growth.steps[0].arguments
    assert (told["text"], told["steps"], told["batch_tokens"]) == ("text.txt", 4, 256)
    assert (told["seed"], told["sequence_length"]) == (recipe["seed"], 32)
    assert float(str(told["loss"])) < float(str(told["initial_loss"]))
    assert growth.result.num_hidden_layers == 4
    assert not Path(recipe["output"], "stages", "maps").exists()


def test_the_tokens_of_the_maps_are_in_the_ledger(learned: dict[str, Any]) -> None:
    manifest = read_manifest(Path(learned["output"], "final"))
    assert manifest is not None
    growth = next(entry for entry in ledger(manifest).entries if entry.kind == "growth")
    assert growth.tokens == 4 * 256
    assert growth.flops == 6 * growth.num_parameters * 4 * 256
    assert growth.exact_flops is not None
    assert growth.exact_flops > 0
    assert growth.device_seconds is not None


def test_a_run_that_was_cut_off_after_learning_ends_in_the_same_bits(
    learned: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = learning(tmp_path)
    runs.stop_after(monkeypatch, cut, 5)
    runs.carry(cut, resume=True)
    assert runs.weights(cut) == runs.weights(learned)


@pytest.mark.parametrize(
    ("learn", "said"),
    [
        ({"maps": "x.safetensors"}, "maps"),
        ({"sequence_length": 32}, "sequence_length"),
        ({"loss": 1.0}, "loss"),
        ({"steps": "many"}, "steps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_stage_cannot_be_told_is_refused(
    tmp_path: Path, learn: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        recipe_of(learning(tmp_path, **learn))


@pytest.mark.parametrize(
    ("learn", "said"), [({"init": "best"}, "init"), ({"lr": 2.0}, "lr")], ids=["init", "lr"]
)
def test_what_cannot_be_learned_is_refused_before_anything_is_trained(
    tmp_path: Path, learn: dict[str, Any], said: str
) -> None:
    recipe = learning(tmp_path, **learn)
    with pytest.raises(UsageError, match=said):
        runs.carry(recipe)
    assert runs.losses(recipe) == []
