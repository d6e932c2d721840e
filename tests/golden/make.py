"""Make what this folder keeps, with the program of commit 0e9aef6 and never with another.

    git worktree add ../kept 0e9aef6 && make -C ../kept setup
    .venv/bin/python -m tests.golden.make ../kept/.venv/bin/hfgrow

What is kept shows that later programs do what that one did; made again by one of them it would show
nothing. So a difference is a bug, or a change of what users get that the changelog owns up to.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.golden import kept
from tests.program import Finished, environment


def main(program: str) -> None:
    """Grow and train with the program of the kept commit, and keep what comes out."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    path = Path(program).absolute()
    _check_commit(path)

    def hfgrow(*args: str | Path, cwd: Path | None = None) -> Finished:
        words = [str(path), *map(str, args)]
        return subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True)

    for name in ("growths", "runs"):
        shutil.rmtree(kept.HERE / name, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="hfgrow-golden-") as scratch:
        for name in kept.GROWTHS:
            kept.keep_growth(kept.grow(hfgrow, name, Path(scratch)))
        for name in (*kept.RUNS, "demo"):
            folder = Path(scratch, "runs", name)
            folder.mkdir(parents=True)
            if name in kept.RUNS:
                kept.train(hfgrow, name, folder)
            else:
                kept.run_in(hfgrow, folder, kept.DEMO)
            kept.keep_run(folder, name)


def _check_commit(program: Path) -> None:
    """End unless a program is that of the kept commit."""
    where = "import hfgrow; print(hfgrow.__path__[0])"
    package = _said([str(program.with_name("python")), "-P", "-c", where])
    git = ["git", "-C", package]
    commit = _said([*git, "rev-parse", "HEAD"])
    changed = _said([*git, "status", "--porcelain", "--", ":/hfgrow", ":/cli", ":/recipes"])
    if not commit.startswith(kept.COMMIT) or changed:
        raise SystemExit(f"The program is not that of {kept.COMMIT}: what is kept stays as it is")


def _said(words: list[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1])
