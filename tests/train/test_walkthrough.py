"""docs/walkthrough.md: its commands, in their order, on fewer tokens and a Hub on loopback."""

import re
import shlex
from pathlib import Path

import pytest

from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import hub_environment
from tests.program import run_hfgrow

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"
SHORT = ("stages.0.train.tokens=4096", "stages.2.train.tokens=4096", "evaluation.tokens=2048")


@pytest.mark.slow
def test_the_walkthrough_ends_with_a_model_on_the_hub(tmp_path: Path) -> None:
    block = re.search(r"^```bash\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert block is not None
    said = {}
    with Hub() as hub:
        environment = hub_environment(hub, tmp_path / "home", token=ALICE) | {"HF_HUB_OFFLINE": "0"}
        for line in block[1].splitlines():
            words = shlex.split(line.replace("you/", "alice/"))[1:]
            if words[0] == "train":
                words += [word for one in SHORT for word in ("--set", one)]
            done = run_hfgrow(*words, cwd=tmp_path, env=environment, timeout=300)
            assert done.returncode == 0, done.stderr
            said[words[0]] = done.stdout
        commit = hub.store.repos["model", "alice/demo-gstack"].at("main")
    assert list(said) == ["budget", "train", "eval", "push", "lineage"]
    assert said["train"] == "demo-gstack/final\n"
    assert "demo-gstack: 12 layers" in said["lineage"]
    assert commit is not None
    assert {"README.md", "hfgrow.json", "loss.png", "model.safetensors"} <= commit.files.keys()
