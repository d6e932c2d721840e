"""What was grown and trained at commit 0e9aef6 is made again to the byte, read, and gone on with.

make.py says how it was made; it is never made again with a later program. Growth is compared by its
bytes. What training measures may differ by 2e-4, for other processors round sums in other ways: a
growth whose optimizer state got lost is off by 8e-3 two steps later.
"""

import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.golden import kept
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING, talk_here
from tests.hub_server.plain_client import sha256
from tests.program import call_hfgrow

# A growth or a run is looked at by several tests, and a run takes time.
pytestmark = pytest.mark.xdist_group("golden")

within_rounding = partial(pytest.approx, abs=2e-4)


@pytest.fixture(scope="module", params=kept.GROWTHS)
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A growth of the demo model by the program as it is."""
    return kept.grow(call_hfgrow, request.param, tmp_path_factory.mktemp("grown"))


@pytest.fixture(scope="module")
def kept_model(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The growth as the kept commit wrote it: weights, config.json, hfgrow.json and card."""
    folder = tmp_path_factory.mktemp("kept") / grown.name
    shutil.copytree(grown, folder)
    kept.put_kept_texts(grown.name, folder)
    return folder


def test_a_growth_writes_the_kept_bytes(grown: Path) -> None:
    assert kept.hashes(grown) == kept.kept_hashes(grown.name)


def test_a_growth_is_drawn_as_it_was_drawn_last(grown: Path) -> None:
    assert kept.pictures(grown) == kept.kept_pictures(grown.name)


def test_a_growth_is_recorded_in_the_kept_words(grown: Path) -> None:
    assert kept.growth_record(grown) == kept.growth_record(kept.kept_growth(grown.name))


def test_a_growth_has_the_kept_card(grown: Path) -> None:
    assert kept.card(grown) == kept.card(kept.kept_growth(grown.name))


def test_a_kept_model_is_verified(kept_model: Path) -> None:
    done = call_hfgrow("verify", kept_model)
    assert done.returncode == 0, done.stderr


def test_a_kept_model_is_reproduced_from_its_record(kept_model: Path) -> None:
    done = call_hfgrow("reproduce", kept_model)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)
@pytest.mark.parametrize("grown", ["apply"], indirect=True)
def test_a_kept_model_is_pushed_as_it_is(
    kept_model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk_here(hub, monkeypatch, token=ALICE)
    done = call_hfgrow("push", kept_model)
    assert done.returncode == 0, done.stderr
    remote = hub.files(f"alice/{kept_model.name}")
    del remote[".gitattributes"]
    local = {path.name: path for path in kept_model.iterdir() if path.name != ".hfgrow-base"}
    assert {name: sha256(file) for name, file in remote.items()} == {
        name: sha256(path) for name, path in local.items()
    }


def _slow(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["adamw", *map(_slow, ("schedule_free_adamw", "muon"))])
def resumed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that the kept commit began, gone on with to its end."""
    folder = Path(tmp_path_factory.mktemp("resumed"), request.param)
    folder.mkdir()
    kept.unpack_run(request.param, folder)
    kept.train(call_hfgrow, request.param, folder, "--resume")
    return folder


def test_a_kept_run_goes_on_to_the_kept_losses(resumed: Path) -> None:
    losses = kept.metrics(kept.kept_run(resumed.name))
    assert kept.metrics(resumed / "run") == within_rounding(losses)


def test_a_kept_run_ends_in_a_model_with_the_kept_record(resumed: Path) -> None:
    """The hashes of the models before the last training are in it: growth is exact."""
    record = kept.run_record(kept.kept_run(resumed.name))
    assert kept.run_record(resumed / "run" / "final") == within_rounding(record)


@pytest.mark.slow
def test_the_demo_is_grown_and_trained_to_the_kept_losses(tmp_path: Path) -> None:
    kept.run_in(call_hfgrow, tmp_path, kept.DEMO)
    run, before = tmp_path / "run", kept.kept_run("demo")
    assert kept.metrics(run) == within_rounding(kept.metrics(before))
    assert kept.run_record(run / "final") == within_rounding(kept.run_record(before))
