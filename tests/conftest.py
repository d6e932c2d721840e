"""What every test has: a cache of its own, no telemetry, a token that must not show, tiny bases."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

# huggingface_hub reads its environment when it is imported, so this stands before all imports.
_HOME = tempfile.TemporaryDirectory(prefix="hfgrow-tests-")
os.environ |= {
    "HF_HOME": _HOME.name,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    # Threads that wait for each other on a shared machine cost more than these models need.
    "OMP_NUM_THREADS": "1",
}
# The suite starts hundreds of programs; each would compile our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import shutil  # noqa: E402

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tests.checkpoints import MakeCheckpoint, write_checkpoint  # noqa: E402
from tests.derived import MakeBase  # noqa: E402
from tests.hub_server.fixtures import empty_hub, module_hub, running_xet_hub  # noqa: E402, F401
from tests.hub_server.homes import empty_home  # noqa: E402, F401
from tests.hub_server.machine import hub_with_base  # noqa: E402, F401
from tests.hub_server.pushes import grown_folder  # noqa: E402, F401
from tests.leaks import TOKENS, leaks  # noqa: E402
from tests.program import CANARY, TERMINAL, handling  # noqa: E402

# The machines that run this are slow and shared: a single example has no deadline. Each run draws
# other examples, so that many runs see what few do not.
settings.register_profile(
    "hfgrow",
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("hfgrow")


@pytest.fixture(autouse=True)
def canary_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with a token, which `no_token_is_left` looks for in the end."""
    monkeypatch.setenv("HF_TOKEN", CANARY)


@pytest.fixture(scope="session", autouse=True)
def no_token_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """When the suite ends, look for the tokens in every file that it has written."""
    yield
    assert leaks(tmp_path_factory.getbasetemp()) + leaks(Path(_HOME.name)) == []


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """Signals are heard by the test and by what it starts, even where the tests run under nohup."""
    with handling(TERMINAL):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that has printed or logged a token."""
    report = yield
    for title, text in report.sections:
        if any(token.decode() in text for token in TOKENS):
            report.outcome, report.longrepr = "failed", f"a token was printed: {title}"
    return report


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """A factory of tiny checkpoints, each made once: look at them, but change only copies."""
    made: dict[str, Path] = {}

    def make(model_type: str = "llama", **options: object) -> Path:
        key = repr((model_type, sorted(options.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{model_type}-") / "base"
            made[key] = write_checkpoint(folder, model_type, **options)  # type: ignore[arg-type]
        return made[key]

    return make


@pytest.fixture(scope="session")
def derived_base(tmp_path_factory: pytest.TempPathFactory) -> MakeBase:
    """Tiny models of transformers, each made once."""
    from benchmarks.reach.prove import base_of

    made: dict[str, Path] = {}

    def get(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = base_of(model_type, tmp_path_factory.mktemp(model_type) / "base")
        return made[model_type]

    return get


@pytest.fixture
def base(tmp_path: Path, make_checkpoint: MakeCheckpoint) -> Path:
    """A tiny Llama of one file that the test may change."""
    return Path(shutil.copytree(make_checkpoint(), tmp_path / "base"))


@pytest.fixture
def sharded_base(tmp_path: Path, make_checkpoint: MakeCheckpoint) -> Path:
    """A tiny Llama of several files and an index that the test may change."""
    return Path(shutil.copytree(make_checkpoint(sharded=True), tmp_path / "sharded"))
