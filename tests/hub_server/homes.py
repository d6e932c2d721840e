"""A home of somebody who types names of models."""

from pathlib import Path

import pytest


@pytest.fixture(name="home")
def empty_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without aliases, and an empty working folder."""
    path = tmp_path / "home"
    (path / "models").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(path / "models")
    return path


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path
