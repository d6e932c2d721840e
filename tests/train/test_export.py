"""The line that says what a stage did to held-out text tells the end, not only the best moment.

What a training writes beside its weights tells nothing of its text, its token or its machine.
"""

import os
import socket
from pathlib import Path

import pytest

from hfgrow.lineage.records import Evaluated
from hfgrow.train.export import evaluated_texts, evaluation_line
from tests.program import CANARY
from tests.train import runs
from tests.train.runs import carry


def evaluated(losses: list[float], *, before: float | None) -> Evaluated:
    """Return what a stage tells of a text, from its losses every 1,000 tokens."""
    evaluations = [
        {
            "tokens": 5_000 + 1_000 * i,
            "stage": 1,
            "when": "inside",
            "validation": {"a.txt": {"loss": loss, "bits_per_byte": loss, "num_tokens": 10}},
        }
        for i, loss in enumerate(losses)
    ]
    if before is not None:
        text = {"a.txt": {"loss": before, "bits_per_byte": before, "num_tokens": 10}}
        evaluations.insert(0, {"tokens": 5_000, "stage": 0, "when": "base", "validation": text})
    (found,) = evaluated_texts(evaluations, 1, has_grown=before is not None)
    return found


@pytest.mark.case("H8")
@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([6.0, 5.5, 5.2], "not yet back where it was before growth"),
        ([6.0, 5.0, 4.0], "back where it was before growth after at most 1,000 tokens"),
        (
            [6.0, 5.0, 5.25],
            "back where it was before growth after at most 1,000 tokens, but in the end 0.2500 "
            "above that",
        ),
        ([5.0, 4.5, 4.0], "growth did not raise it"),
        ([5.0, 4.5, 5.5], "growth did not raise it, but in the end 0.5000 above that"),
    ],
    ids=["never", "stayed", "lost again", "not raised", "not raised, worse"],
)
def test_growth_and_training_are_told_with_their_end(losses: list[float], said: str) -> None:
    line = evaluation_line(evaluated(losses, before=5.0))
    assert line.endswith(f"after training; {said}")


def test_a_training_that_made_a_model_worse_says_so() -> None:
    assert evaluation_line(evaluated([4.5, 395.0], before=None)).endswith(
        "training raised it by 390.5000"
    )
    assert evaluation_line(evaluated([4.5, 4.0], before=None)).endswith("4.0000 after training")


PHRASE = "my grandmother keeps the spare key under the third flowerpot"


@pytest.mark.case("G1", "G4", "G9")
def test_a_run_writes_no_text_no_token_and_nothing_of_the_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = runs.recipe(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("\n\n\n".join(f"{PHRASE} {i}" for i in range(600)))
    pushed = carry(recipe)
    written = [path for path in Path(recipe["output"]).rglob("*") if path.is_file()]
    assert {"README.md", "metrics.jsonl", "hfgrow.json"} <= {path.name for path in written}
    contents = {path: path.read_bytes() for path in written}
    told = "".join(capfd.readouterr()).encode()
    for path, raw in {**contents, Path("what was printed"): told}.items():
        assert b"flowerpot" not in raw, path
        assert CANARY.encode() not in raw, path
    machine = [str(tmp_path), socket.gethostname(), os.environ.get("USER", "")]
    for name in ("README.md", "hfgrow.json", "config.json"):
        for word in filter(None, machine):
            assert word not in (pushed / name).read_text(), name
