"""`hfgrow compare`: growths ranked by a short training, resumed, the winner kept."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import OutputError
from hfgrow.lineage.reading import read_manifest
from hfgrow.study.compare import begun
from tests.checkpoints import MakeCheckpoint
from tests.program import call_hfgrow
from tests.train.test_evaluate import TEXT, write_tokenizer

SETTINGS = (
    *("--text", "text.txt", "--tokens", "512", "--batch-tokens", "128", "--sequence-length", "32"),
    *("--eval-tokens", "256", "--lr", "1e-2", "--cpu"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    shutil.copytree(make_checkpoint(traits=False), folder / "base")
    write_tokenizer(folder / "base", sorted(set(TEXT)))
    (folder / "text.txt").write_text("\n\n\n".join(TEXT[i : i + 80] for i in range(300)))
    return folder


def check_compared_twice(place: Path, *words: str) -> tuple[dict[str, Any], str, str]:
    """Return what a comparison says: as JSON, and what a first and a second one say on stderr."""
    first, again = (call_hfgrow("compare", "base", *words, *SETTINGS, cwd=place) for _ in range(2))
    assert first.returncode == 0, first.stdout + first.stderr
    found = call_hfgrow("compare", "base", *words, *SETTINGS, "--json", cwd=place)
    document: dict[str, Any] = json.loads(found.stdout)
    assert f"best after 512 tokens: {document['winner']}" in again.stdout
    return document, first.stderr, again.stderr


def test_growths_are_ranked_by_the_loss_after_the_probe(place: Path) -> None:
    words = ("--ops", "stack,zero-depth", "--op", "partial 12-34*2", "--keep")
    found, first, again = check_compared_twice(place, *words)
    assert first.count("step 4/4") == 3
    assert re.search(
        r"^3 trainings of 512 tokens, \S+ FLOPs: about 1 s on free cores$", first, re.M
    )
    assert "there is no run to go on with" not in first
    probes = found["probes"]
    assert {probe["operator"] for probe in probes} == {
        "stack --g 2",
        "zero-depth --g 2",
        "partial 12-34*2",
    }
    assert [probe["rank"] for probe in probes] == [1, 2, 3]
    after = [probe["after"] for probe in probes]
    assert after == sorted(after)
    at_first = sorted(probes, key=lambda probe: probe["just_after"])
    assert [probe["rank_just_after"] for probe in at_first] == [1, 2, 3]
    assert len({probe["before"] for probe in probes}) == 1
    zero = next(probe for probe in probes if "zero" in probe["operator"])
    assert zero["just_after"] == pytest.approx(zero["before"], abs=1e-5)
    # All were measured, so nothing is trained a second time.
    assert again.count("measured already") == 3
    assert "growing" not in again
    assert "FLOPs" not in again
    winner = place / "base-comparison" / "winner"
    assert found["kept"] == str(winner)
    manifest = read_manifest(winner)
    assert manifest is not None
    assert manifest.link.result.num_parameters == probes[0]["num_parameters"]
    # Its card has this as title. The grown model is gone, so the base of that stands beside it.
    assert manifest.link.result.name.startswith("base-")
    assert manifest.link.result.name.endswith("-probe")
    measured = ("eval", winner, "--with-base", "--text", "text.txt", "--tokens", "9", "--json")
    beside = call_hfgrow(*measured, cwd=place)
    (text,) = json.loads(beside.stdout)["texts"]
    assert [row["model"] for row in text["models"]] == ["base", str(winner)]
    # Probes of other settings lie in the same file, so each says how it was made.
    record = json.loads((winner.parent / "comparison.json").read_text())["probes"].values()
    for settings in (found["settings"], *(probe["settings"] for probe in record)):
        assert settings["text"] == {"train": ["text.txt"]}
        kept = ("model", "tokens", "learning_rate", "seed", "sequence_length")
        assert [settings[key] for key in kept] == ["base", 512, 1e-2, 0, 32]
    assert {path.name for path in winner.parent.iterdir()} >= {
        "comparison.json",
        "tokens",
        "winner",
    }
    assert not (winner.parent / "runs").exists()
    others = [word for probe in probes[1:] for word in ("--op", probe["operator"])]
    without = call_hfgrow("compare", "base", *others, *SETTINGS, cwd=place)
    assert "winner is of another comparison" in without.stderr


MISTAKES: dict[str, tuple[int, tuple[str, ...], str]] = {
    "one operator": (2, ("--ops", "stack"), "two operators"),
    "no operator": (2, (), "two operators"),
    "one twice": (2, ("--ops", "stack,stack"), "named twice"),
    "an unknown one": (2, ("--ops", "stack,stak"), "stak"),
    "an unknown option": (2, ("--ops", "stack", "--op", "solar --depth 3"), "--depth"),
    "no value": (2, ("--ops", "stack", "--op", "solar --overlap"), "needs a value"),
    "a value that is none": (2, ("--ops", "stack", "--op", "solar --overlap x"), "number"),
    "one that cannot be": (2, ("--ops", "stack", "--op", "solar --overlap 9"), "solar"),
    "g of 1": (2, ("--ops", "stack,interpolate", "--g", "1"), "not 1"),
    "another folder": (7, ("--ops", "stack,interpolate", "--out", "base"), "no comparison"),
    "half a sequence": (
        2,
        ("--ops", "stack,interpolate", "--sequence-length", "48"),
        "no multiple",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_trained(place: Path, mistake: str) -> None:
    code, words, said = MISTAKES[mistake]
    out = () if "--out" in words else ("--out", "mistaken")
    settings = list(SETTINGS)
    if "--sequence-length" in words:
        at = settings.index("--sequence-length")
        del settings[at : at + 2]
    found = call_hfgrow("compare", "base", *settings, *words, *out, cwd=place)
    assert (found.returncode, found.stdout) == (code, ""), found.stderr
    (line,) = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert said in line
    assert not (place / "mistaken" / "runs").exists()


def test_a_comparison_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    with (
        begun(tmp_path / "one"),
        pytest.raises(OutputError, match="another run is writing"),
        begun(tmp_path / "one"),
    ):
        pass


def test_held_out_text_that_is_trained_on_is_told(place: Path) -> None:
    """The note comes before the first growth, which this rate refuses."""
    words = ("--validation", "text.txt", "--ops", "stack,interpolate", "--lr", "-1")
    found = call_hfgrow("compare", "base", *SETTINGS[:-3], *words, "--out", "shared", cwd=place)
    assert found.returncode == 2
    assert "Note: " in found.stderr
    assert "text.txt" in found.stderr


def test_a_text_that_is_read_many_times_is_told(place: Path) -> None:
    """Before the first growth, which this rate refuses."""
    (place / "short.txt").write_text(TEXT[:130])
    settings = ("--validation", "text.txt", *SETTINGS[2:-3], "--out", "short", "--lr", "-1")
    words = ("--text", "short.txt", "--ops", "stack,interpolate")
    found = call_hfgrow("compare", "base", *words, *settings, cwd=place)
    assert found.returncode == 2
    assert "Note: short.txt is trained on 4 times over" in found.stderr


HINTS: dict[str, tuple[tuple[str, ...], str]] = {
    "more than the positions": (("--sequence-length", "4096"), "Hint: --sequence-length 512\n"),
    "too little to hold out": (
        ("--sequence-length", "400", "--batch-tokens", "400"),
        "or held-out text as --validation\n",
    ),
}


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_names_an_option_of_the_command(place: Path, name: str) -> None:
    words, hint = HINTS[name]
    (place / "little.txt").write_text(TEXT)
    settings = ("--text", "little.txt", "--ops", "stack,zero-depth", "--cpu", "--out", "little")
    found = call_hfgrow("compare", "base", *settings, *words, cwd=place)
    assert found.returncode in (2, 8)
    assert hint in found.stderr
