"""What a training writes beside its weights tells nothing of its text, its token or its machine."""

import os
import socket
from pathlib import Path

import pytest

from tests.program import CANARY
from tests.train import runs
from tests.train.runs import carry

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
