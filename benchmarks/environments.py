"""The programs that hfgrow is measured against, each in a virtual environment of its own."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MERGEKIT = "0.1.5"


def torch_version() -> str:
    """Return the requirement of torch that the constraints name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def mergekit_venv(folder: Path, given: Path | None) -> Path:
    """Return an environment with mergekit, made in a folder unless one is given or there already.

    Args:
        folder: Where environments lie; they stay there for the next time.
        given: An environment that somebody made.
    """
    return given or made(folder / f"mergekit-{MERGEKIT}", [f"mergekit=={MERGEKIT}"])


def hfgrow_venv(folder: Path, commit: str, given: Path | None) -> Path:
    """Return an environment with hfgrow as a commit of this repository has it.

    Args:
        folder: As in `mergekit_venv`.
        commit: The commit.
        given: As in `mergekit_venv`; its `hfgrow` must be that of the commit.
    """
    if given is not None:
        return given
    source = folder / f"source-{commit}"
    if not source.is_dir():
        archive = ["git", "-C", str(ROOT), "archive", commit]
        packed = subprocess.run(archive, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(source, filter="data")
    constraints = ["--constraint", str(source / "constraints.txt")]
    return made(folder / f"hfgrow-{commit}", [*constraints, f"{source}[train]"])


def made(venv: Path, requirements: Sequence[str], *, torch: bool = True) -> Path:
    """Return an environment with some packages, made unless it is there.

    Args:
        venv: Where it lies.
        requirements: What is installed.
        torch: Whether torch comes first, in the version of the constraints.
    """
    done = venv / ".done"
    if not done.is_file():
        print(f"making {venv}", file=sys.stderr)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        # Alone and first, so that nothing asks for another build, and then held to its version.
        if torch:
            pip.append(torch_version())
            subprocess.run(pip, check=True)
        subprocess.run([*pip, *requirements], check=True)
        done.touch()
    return venv
