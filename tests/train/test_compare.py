"""`hfgrow compare`: growths ranked by a short training, resumed, the winner kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfgrow.errors import OutputError, UsageError
from hfgrow.manifest import read_manifest
from hfgrow.train.compare import begun
from hfgrow.typed import typed_step
from tests.checkpoints import MakeCheckpoint
from tests.program import call_hfgrow
from tests.train.test_side_by_side import TEXT, write_tokenizer

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


def compared(place: Path, *words: str) -> tuple[dict[str, Any], str]:
    """Return what a comparison says: as JSON, and what a second one says on stderr."""
    found = call_hfgrow("compare", "base", *words, *SETTINGS, "--json", cwd=place)
    assert found.returncode == 0, found.stdout + found.stderr
    again = call_hfgrow("compare", "base", *words, *SETTINGS, cwd=place)
    document: dict[str, Any] = json.loads(found.stdout)
    assert f"best after 512 tokens: {document['winner']}" in again.stdout
    return document, again.stderr


def test_growths_are_ranked_by_the_loss_after_the_probe(place: Path) -> None:
    words = ("--ops", "stack,zero-depth", "--op", "partial 12-34*2", "--keep")
    found, again = compared(place, *words)
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
    winner = place / "base-comparison" / "winner"
    assert found["kept"] == str(winner)
    manifest = read_manifest(winner)
    assert manifest is not None
    assert manifest.link.result.num_parameters == probes[0]["num_parameters"]
    assert sorted(path.name for path in winner.parent.iterdir()) == [
        "comparison.json",
        "tokens",
        "winner",
    ]


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
    """The note comes before the first growth, which here cannot be."""
    words = ("--validation", "text.txt", "--ops", "stack", "--op", "solar --overlap 9")
    found = call_hfgrow("compare", "base", *SETTINGS, *words, "--out", "shared", cwd=place)
    assert found.returncode == 2
    assert "Note: " in found.stderr
    assert "text.txt" in found.stderr


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("stack --g 2", ("stack", {"g": 2})),
        ("stack --layers=6 --remainder head", ("stack", {"layers": 6, "remainder": "head"})),
        ("partial 12-34*2", ("partial", {"pattern": "12-34*2"})),
        ("paper-noise --amount 1e-2", ("paper-noise", {"amount": 0.01})),
        ("untie", ("untie", {})),
    ],
    ids=str,
)
def test_an_operator_is_read_as_it_is_typed(text: str, step: tuple[str, dict[str, object]]) -> None:
    assert typed_step(text) == step


@pytest.mark.parametrize("text", ["", "stack 'x", "stack 2", "stack --g", "stack --g two"])
def test_what_is_no_operator_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        typed_step(text)
