"""A computer with the program on it, and a hub with a base for it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import MakeCheckpoint
from tests.hub_server import ALICE, ALICE_READ, Hub
from tests.hub_server.fixtures import hub_environment
from tests.program import program

BASE = "alice/tiny"
TARGET = "alice/tiny-stack-g4"


class Machine:
    """A computer of alice's: a cache, a working folder, and the program."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home
        self.cwd = home / "work"
        self.cwd.mkdir(parents=True)

    def hfgrow(
        self, *words: str, token: str | None = ALICE, offline: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever comes out."""
        environment = hub_environment(self.hub, self.home / "hf", token=token)
        if offline:
            environment["HF_HUB_OFFLINE"] = "1"
        finished = subprocess.run(
            [program(), *words], cwd=self.cwd, env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in finished.stderr
        assert not {ALICE, ALICE_READ} & set((finished.stdout + finished.stderr).split())
        return finished

    def left_behind(self) -> list[str]:
        """What lies in the working folder."""
        return sorted(path.name for path in self.cwd.iterdir())


@pytest.fixture(scope="module")
def hub_with_base(
    make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hub]:
    """A hub that the tests of a module share, with a base, its card and a pickle."""
    folder = make_checkpoint(sharded=True, tokenizer=True)
    files = {path.name: path for path in folder.iterdir()}
    card = tmp_path_factory.mktemp("card") / "README.md"
    card.write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n\nOnly for tests.\n")
    with Hub() as hub:
        hub.seed(BASE, {**files, "README.md": card, "training_args.bin": b"\x80\x04 no pickle"})
        yield hub
