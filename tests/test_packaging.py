"""The package as people get it: every folder shipped, the wheel works in a fresh environment."""

import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

# Two builds at once in one tree get in each other's way.
pytestmark = pytest.mark.xdist_group("packaging")

ROOT = Path(__file__).parents[1]
FOLDERS = {"hfgrow": "hfgrow", "cli": "hfgrow_cli", "recipes": "hfgrow_recipes"}
DOCS = "hfgrow_docs"
MAX_DEMO_NBYTES = 5_000_000


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


def test_every_package_folder_is_listed_in_pyproject() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    found = set()
    for folder, package in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *parts)))
    assert listed == found | {DOCS}


def test_the_wheel_holds_our_packages_and_no_other(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {*FOLDERS.values(), DOCS}
    for wanted in ("py.typed", "growth/probe.txt", "hub/aliases.toml", "demo/model.safetensors"):
        assert f"hfgrow/{wanted}" in names
    for recipe in (ROOT / "recipes").rglob("*.yaml"):
        assert f"hfgrow_recipes/{recipe.relative_to(ROOT / 'recipes')}" in names
    for page in (ROOT / "docs").glob("*.md"):
        assert f"{DOCS}/{page.name}" in names


def test_the_embedded_model_stays_small(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        nbytes = sum(
            item.file_size for item in archive.infolist() if item.filename.startswith("hfgrow/demo")
        )
    assert nbytes <= MAX_DEMO_NBYTES


def test_the_sdist_leaves_out_what_was_built(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as archive:
        names = archive.getnames()
    assert not [name for name in names if "/.venv/" in name or "__pycache__" in name]


def test_the_wheel_grows_the_demo_model_in_a_fresh_environment(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    # The dependencies come from this environment; only hfgrow itself is the wheel's.
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(distributions[1])], check=True)
    libraries = next((environment / "lib").glob("python3.*")) / "site-packages"
    here = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    (libraries / "dependencies.pth").write_text(f"{here}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [str(environment / "bin" / "hfgrow"), "stack", "demo", "--g", "2", "--out", "grown"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "grown\n"), done.stderr
    assert (elsewhere / "grown" / "model.safetensors").is_file()
    where = [str(python), "-c", "import hfgrow; print(hfgrow.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(libraries))
    clash = [str(python), "-c", "import importlib.util as u; assert u.find_spec('cli') is None"]
    subprocess.run(clash, cwd=elsewhere, check=True)
