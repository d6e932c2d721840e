"""Without torch and numpy: what copies and what is zero goes, what computes is refused at once.

With numpy alone, all goes but products of matrices.
"""

import json
import shutil
from pathlib import Path

import pytest

from hfgrow.growth.loading import transformers_config
from tests.checkpoints import MakeCheckpoint, copied_models, edit_json
from tests.program import Finished, call_hfgrow, run_hfgrow

# Run by Python at its start: what is hidden looks as if nobody had installed it.
HIDE = """
import os
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in os.environ["HIDDEN"].split()
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


@pytest.fixture(scope="module")
def grown(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in float32, `copied` and `zeros` grown from it, and `computed` and `after` it."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(make_checkpoint(), folder / "base")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(HIDE)
    for words in (
        ("stack", "base", "--g", "2", "--out", "copied"),
        ("zero-depth", "base", "--g", "2", "--out", "zeros"),
        ("stack", "base", "--g", "2", "--dtype", "bfloat16", "--out", "computed"),
        ("stack", "./computed", "--g", "2", "--dtype", "float32", "--out", "after"),
    ):
        finished = call_hfgrow(*words, cwd=folder)
        assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture
def place(grown: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may change."""
    return copied_models(grown, tmp_path / "place")


def bare(place: Path, *words: str, hidden: str = "torch numpy transformers") -> Finished:
    env = {"PYTHONPATH": str(place / "site"), "HIDDEN": hidden}
    return run_hfgrow(*words, cwd=place, env=env)


@pytest.mark.parametrize(
    "words",
    [
        ("stack", "base", "--g", "2"),
        ("zero-depth", "base", "--g", "2"),
        ("stack", "base", "--g", "2", "--dtype", "float32"),
        ("stack", "./computed", "--g", "2", "--dtype", "bfloat16"),
        ("stack", "base", "--g", "2", "--dtype", "bfloat16", "--dry-run"),
        ("verify", "copied"),
        ("verify", "zeros"),
        ("reproduce", "./zeros"),
    ],
    ids=" ".join,
)
def test_copies_and_zeros_need_no_torch(place: Path, words: tuple[str, ...]) -> None:
    finished = bare(place, *words)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("stack", "base", "--g", "2", "--dtype", "bfloat16", "--out", "new"),
        ("average", "base", "--layers", "6", "--out", "new"),
        ("stack", "base", "--g", "2", "--branch-scale", "0.5", "--out", "new"),
        ("verify", "computed"),
        ("reproduce", "./computed"),
        ("reproduce", "./after", "--out", "new"),
    ],
    ids=" ".join,
)
def test_what_has_to_be_computed_is_refused_and_nothing_written(
    place: Path, words: tuple[str, ...]
) -> None:
    before = sorted(place.iterdir())
    finished = bare(place, *words)
    assert finished.returncode == 2, finished.stderr
    assert "computing tensors needs numpy, which is not installed" in finished.stderr
    assert "-m pip install numpy\n" in finished.stderr
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    "words",
    [
        ("stack", "base", "--g", "2", "--dtype", "bfloat16"),
        ("hyperclone-noisy", "base", "--g", "2"),
        ("random-width", "./computed", "--g", "2"),
        ("average", "base", "--layers", "6"),
        ("verify", "computed"),
        ("check", "base", "--weights"),
    ],
    ids=" ".join,
)
def test_numpy_alone_computes_tensors(place: Path, words: tuple[str, ...]) -> None:
    finished = bare(place, *words, hidden="torch transformers")
    assert finished.returncode == 0, finished.stderr


def test_products_of_matrices_need_torch(place: Path) -> None:
    finished = bare(place, "lesa", "base", "--layers", "6", hidden="torch transformers")
    assert finished.returncode == 2
    assert "computing tensors needs torch, which is not installed" in finished.stderr


def test_a_verification_without_transformers_says_what_it_left_out(place: Path) -> None:
    document = json.loads(bare(place, "verify", "zeros", "--json").stdout)
    assert document["measured"] is None
    assert document["num_transformers_tensors"] is None
    assert "promised to be preserved" in bare(place, "verify", "zeros").stdout


def test_a_check_with_transformers_asks_for_accelerate_too(place: Path) -> None:
    """It keeps the weights on the disk; without it nothing is half done."""
    words = ("stack", "base", "--g", "2", "--verify", "--out", "new")
    finished = bare(place, *words, hidden="accelerate")
    assert finished.returncode == 2
    assert "needs accelerate, which is not installed" in finished.stderr
    assert "hfgrow[train]" in finished.stderr
    assert not (place / "new").exists()
    verified = bare(place, "verify", "copied", hidden="accelerate")
    assert verified.returncode == 0
    assert "Note: transformers' view and the logits need accelerate" in verified.stderr


def test_infinity_as_transformers_writes_it_is_a_number(base: Path) -> None:
    edit_json(base / "config.json", a_cap={"__float__": "Infinity"}, more={"x": [{"__float__": 5}]})
    config = transformers_config(base)
    assert config.a_cap == float("inf")
    assert config.more == {"x": [{"__float__": 5}]}
