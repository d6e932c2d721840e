"""Fixtures and environments for tests that talk to a hub.

huggingface_hub reads its environment at import. In-process tests therefore pass the address and
the token, `HfApi(endpoint=hub.url, token=ALICE)`, and use the fixture `hub`, which also switches
xet off; anything that needs HF_ENDPOINT runs in a subprocess with `hub_environment`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .access import ALICE, USERS
from .server import Hub
from .site import Knobs

# The client of 2.4 sends an LFS object in a way that its own HTTP library deprecates. A test that
# uploads in this process needs this filter where warnings are errors:
# pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)
IGNORE_CLIENT_WARNING = "ignore:Use 'content=:DeprecationWarning"


@pytest.fixture(scope="module", name="hub_server")
def module_hub() -> Iterator[Hub]:
    """A hub that the tests of a module share; starting one costs more than emptying one."""
    with Hub() as hub:
        yield hub


@pytest.fixture(name="hub")
def empty_hub(
    hub_server: Hub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Hub]:
    """An empty hub, and a client in this process without a token, a past, xet, or long waits.

    Afterwards no token may be found in anything that was printed or logged.
    """
    hub_server.store.repos.clear()
    hub_server.log.clear()
    hub_server.clear_faults()
    hub_server.knobs.page_size = Knobs.page_size
    hub_server.knobs.part_bytes = None
    for blob in hub_server.store.blobs.folder.iterdir():
        blob.unlink()
    monkeypatch.setattr("hfgrow.hub.client.time.sleep", lambda _s: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _s: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield hub_server
    written = "".join(capfd.readouterr()) + caplog.text
    assert not any(token in written for token in USERS)


@pytest.fixture(name="xet_hub")
def running_xet_hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with xet: run clients in subprocesses, one after the other."""
    with Hub(xet=tmp_path / "xet-storage") as hub:
        yield hub


def talk_here(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Let the program in this process take a hub for the Hub, with a token."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", token)


def hub_environment(
    hub: Hub, home: Path, token: str | None = ALICE, *, xet: bool = False
) -> dict[str, str]:
    """Return the environment of a subprocess whose client talks to a hub.

    Args:
        hub: the hub.
        home: a fresh folder for HF_HOME: the cache and the stored token.
        token: the token, None for an anonymous client.
        xet: whether the client uploads by xet, which the hub must support.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    inherited.pop("HUGGING_FACE_HUB_TOKEN", None)
    environment = {
        **inherited,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    return environment
