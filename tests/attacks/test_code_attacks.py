"""Group C, code in a model folder: never run, never copied."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import edit_json
from tests.program import call_hfgrow, run_hfgrow

GHOST = '"""Run by whoever trusts it."""\nfrom pathlib import Path\nPath({!r}).touch()\n'


def with_code(base: Path, marker: Path, **changes: Any) -> None:
    """Add code to a checkpoint that leaves a mark where it runs."""
    for name in ("configuration_evil.py", "modeling_evil.py", "tokenization_evil.py"):
        (base / name).write_text(GHOST.format(str(marker)))
    auto_map = {
        "AutoConfig": "configuration_evil.Config",
        "AutoModelForCausalLM": "modeling_evil.Model",
    }
    edit_json(base / "config.json", auto_map=auto_map, **changes)


@pytest.mark.case("C9")
def test_code_of_a_known_type_is_neither_run_nor_kept(base: Path, tmp_path: Path) -> None:
    with_code(base, tmp_path / "ran")
    finished = call_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out")
    assert finished.returncode == 0
    assert "auto_map was dropped" in finished.stderr
    assert "auto_map" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert not list((tmp_path / "out").glob("*.py"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.case("C10")
def test_code_of_an_unknown_type_is_refused_without_a_question(base: Path, tmp_path: Path) -> None:
    with_code(base, tmp_path / "ran", model_type="evil")
    finished = run_hfgrow("stack", base, "--g", "2", "--out", tmp_path / "out", timeout=10)
    assert finished.returncode == 3
    assert "'evil' is unknown" in finished.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
