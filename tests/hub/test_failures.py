"""A Hub that lies, is slow, or sends the client elsewhere; and two clients at once.

How long a Hub that answers 5xx for ever is waited for, and what is said meanwhile.

Every refusal of the Hub at every call of a pull and of a push: exit code, status, next step.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from huggingface_hub import close_session

from hfgrow.errors import (
    GrowthError,
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    ModelError,
    VerificationError,
)
from hfgrow.hub.client import HubClient, _bounded_client
from hfgrow.hub.listing import list_commit
from hfgrow.hub.pull import RemoteFiles, pull
from hfgrow.hub.resolve import resolve
from tests.hub_server import ALICE, Hub
from tests.hub_server.fixtures import IGNORE_CLIENT_WARNING, hub_environment
from tests.hub_server.pulls import BASE, STORED, fetch, names_in
from tests.hub_server.pushes import FILES, TARGET, check, content, fill, send
from tests.program import program
from tests.sampling import sampled

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)

CALLS_OF_A_PULL = [
    "GET /api/models/bob/base$",
    "/tree/",
    "HEAD .*/resolve/",
    "GET .*/resolve/",
    "/storage/",
]


@pytest.fixture
def elsewhere() -> Iterator[Hub]:
    """Another server, which must never see the token."""
    with Hub() as other:
        yield other


@pytest.mark.case("F-12")
def test_a_hostile_listing_leads_nowhere(hub: Hub, tmp_path: Path) -> None:
    hostile = {
        "../../../evil.safetensors": b"1",
        "/etc/evil": b"1",
        "..": b"1",
        "a\nb": b"1",
        "\u202egpj.exe": b"1",
        "LICENSE/../../../evil": b"1",
        "C:\\evil": b"1",
    }
    hub.seed("bob/base", BASE | hostile)
    before = {path for path in tmp_path.rglob("*") if path.is_dir()}
    assert names_in(fetch(hub)) == set(BASE)
    made = {p for p in tmp_path.rglob("*") if p.is_dir()} - before
    assert all(path.is_relative_to(tmp_path / "hub") for path in made)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.case("F-12")
def test_a_listing_of_very_many_files_is_read_and_refused(hub: Hub) -> None:
    many = {f"LICENSE{i}": b"" for i in range(20_000)}
    hub.seed("bob/base", BASE | many)
    client = HubClient(ALICE, hub.url)
    assert list_commit(client, "bob/base").num_files > 20_000
    with pytest.raises(ModelError, match=r"20\d{3} tokenizer and licence files"):
        fetch(hub)


@pytest.mark.case("F-13")
@pytest.mark.parametrize(
    ("call", "status"), sampled(["GET /api/models", *CALLS_OF_A_PULL[1:]], [302, 307, 308])
)
def test_no_redirect_takes_the_token_to_another_host(
    hub: Hub, elsewhere: Hub, call: str, status: int
) -> None:
    hub.seed("bob/base", BASE)
    elsewhere.seed("bob/base", BASE)
    client = HubClient(ALICE, hub.url)
    headers = {"Location": f"{elsewhere.url}/bob/base/resolve/main/config.json"}
    fault = hub.fault(call, status=status, headers=headers, times=999)
    for work in (lambda: fetch(hub), lambda: look(client)):
        with suppress(ModelError, HubRefusedError, HubUnreachableError, VerificationError):
            work()
    assert fault.num_hits > 0
    # The client follows no redirect of a HEAD to another host; of all others it does.
    assert bool(elsewhere.log) == (not call.startswith("HEAD"))
    assert not any(record.authorized for record in elsewhere.log)


def look(client: HubClient) -> None:
    RemoteFiles(resolve("bob/base", client), client).read("model.safetensors", 0, 100)


@pytest.mark.case("F-10")
def test_a_hub_that_hangs_is_left_after_a_while(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr("hfgrow.hub.pull.TRANSFER_WAITS_S", ())
    hub.seed("bob/base", BASE)
    slow = hub.fault(STORED, delay_s=0.4, times=2)
    assert (fetch(hub) / "model.safetensors").read_bytes() == BASE["model.safetensors"]
    assert slow.num_hits == 2


@pytest.mark.case("F-10", "F-11")
@pytest.mark.parametrize("nbytes", [0, 1, 300_000])
def test_a_download_that_is_always_cut_is_never_taken_for_whole(
    hub: Hub, nbytes: int, tmp_path: Path
) -> None:
    hub.seed("bob/base", BASE)
    hub.fault(f"GET {STORED}", cut_after_bytes=nbytes, times=999)
    with pytest.raises(HubUnreachableError):
        fetch(hub)
    assert not list(tmp_path.rglob("model.safetensors"))
    hub.clear_faults()
    assert (fetch(hub) / "model.safetensors").read_bytes() == BASE["model.safetensors"]


@pytest.mark.case("F-7")
def test_a_short_rate_limit_is_waited_for_and_told(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("hfgrow.hub.client.time.sleep", waits.append)
    sha = hub.seed("bob/base", BASE)
    hub.fault("/api/models", status=429, headers={"RateLimit": '"api";r=0;t=3'}, times=2)
    assert resolve("bob/base", HubClient(ALICE, hub.url)).revision == sha
    assert waits == [4, 4]
    assert "429; trying again in 4 s" in caplog.text


@pytest.mark.case("F-6")
def test_of_two_pushes_at_once_one_goes_through_and_the_other_is_told(
    hub: Hub, tmp_path: Path
) -> None:
    hub.seed(TARGET, {"hfgrow.json": b"old"})
    client = HubClient(ALICE, hub.url)
    folders = [fill(tmp_path / name, FILES | {"config.json": name.encode()}) for name in ("a", "b")]
    targets = [check(client) for _ in folders]
    hub.fault("/commit/", delay_s=0.2, times=2)
    outcomes: list[object] = [None, None]

    def run(i: int) -> None:
        try:
            outcomes[i] = send(folders[i], targets[i], client)
        except GrowthError as error:
            outcomes[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = [i for i in range(2) if isinstance(outcomes[i], HubConflictError)]
    assert len(lost) == 1, outcomes
    assert content(hub, TARGET)["config.json"] == "ba"[lost[0]].encode()
    assert len(hub.commits(TARGET)) == 3
    again = send(folders[lost[0]], check(client), client)
    assert again.commit == hub.head(TARGET)


@pytest.mark.case("E15")
def test_two_processes_fill_one_cache(hub: Hub, tmp_path: Path) -> None:
    hub.seed("bob/base", BASE)
    hub.fault("GET .*/resolve/|/storage/", delay_s=0.2, times=99)
    command = [program(), "pull", "bob/base"]
    environment = hub_environment(hub, tmp_path / "hf")
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (folder,) = map(Path, folders)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == BASE


# Three attempts of a transfer, in each of which the client library waits up to 23 s.
_LONGEST_S = 80


@pytest.mark.case("F-8")
@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("call", ["GET /api/models/bob/base", "/tree/", "HEAD .*/resolve/"])
def test_every_wait_is_announced_and_they_end(
    hub: Hub,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    status: int,
) -> None:
    waited_s: list[float] = []
    monkeypatch.setattr("hfgrow.hub.client.time.sleep", waited_s.append)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited_s.append)
    hub.seed("bob/base", BASE)
    hub.fault(call, status=status, times=999)
    client = HubClient(ALICE, hub.url)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(HubUnreachableError, match=str(status)) as caught,
    ):
        pull(resolve("bob/base", client), client)
    assert caught.value.hint.startswith("try again later")
    ours = [record.getMessage() for record in caplog.records if record.name == "hfgrow.hub.client"]
    assert ours
    assert all(f"{status}; trying again in" in line for line in ours)
    # Files are fetched side by side, each with a patience of its own.
    num_waiters = len(BASE) if "resolve" in call else 1
    assert 10 <= sum(waited_s) <= num_waiters * _LONGEST_S


EXIT_CODES = {401: 4, 403: 4, 404: 4, 409: 6, 412: 6, 413: 4, 429: 5, 503: 5}
CARD_VERDICTS = {413: 3}


def check_told(error: GrowthError, status: int, code: int | None = None) -> None:
    assert error.exit_code == (code or EXIT_CODES[status]), error
    assert str(status) in str(error)
    assert error.hint
    assert str(error).isprintable()


@pytest.mark.case("F-1", "F-4", "F-6", "F-7", "F-8")
@pytest.mark.parametrize(("call", "status"), sampled(CALLS_OF_A_PULL, EXIT_CODES))
def test_a_pull_tells_what_the_hub_answered(hub: Hub, call: str, status: int) -> None:
    hub.seed("bob/base", BASE)
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(call.replace("base$", "base.*blobs"), status=status, times=999)
    with pytest.raises(GrowthError) as caught:
        pull(resolve("bob/base", client), client)
    assert fault.num_hits > 0
    check_told(caught.value, status)
    assert "--create-pr" not in caught.value.hint
    hub.clear_faults()
    assert (pull(resolve("bob/base", client), client) / "LICENSE").read_bytes() == BASE["LICENSE"]


CALLS_OF_A_PUSH = [
    "GET /api/whoami",
    "GET /api/models/alice",
    "POST /api/repos/create",
    "POST /api/validate-yaml",
    "POST .*/preupload/",
    "POST .*/objects/batch",
    "PUT ",
    "POST .*/commit/",
]


@pytest.mark.case("F-1", "F-2", "F-5", "F-6", "F-7", "F-8", "F-16", "F-22")
@pytest.mark.parametrize("status", EXIT_CODES)
@pytest.mark.parametrize("call", CALLS_OF_A_PUSH)
def test_a_push_tells_what_the_hub_answered_and_changes_nothing(
    hub: Hub, grown: Path, call: str, status: int
) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(call, status=status, times=999)
    with pytest.raises(GrowthError) as caught:
        send(grown, check(client), client)
    assert fault.num_hits > 0
    check_told(caught.value, status, CARD_VERDICTS.get(status) if "yaml" in call else None)
    assert ("model", TARGET) not in hub.store.repos or len(hub.commits(TARGET)) == 1
    hub.clear_faults()
    send(grown, check(client), client)
    assert content(hub, TARGET).items() >= FILES.items()


@pytest.mark.case("F-2", "F-6", "F-8")
@pytest.mark.parametrize("status", EXIT_CODES)
@pytest.mark.parametrize("call", ["GET .*/auth-check", "POST .*/commit/", "GET .*/revision/"])
def test_a_push_into_a_repository_that_exists_tells_what_the_hub_answered(
    hub: Hub, grown: Path, call: str, status: int
) -> None:
    before = hub.seed(TARGET, {"hfgrow.json": b"old"})
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(call, status=status, times=999)
    with pytest.raises(GrowthError) as caught:
        send(grown, check(client), client)
    assert fault.num_hits > 0
    check_told(caught.value, status)
    # What only reads the new commit comes after it: the push is there, and the next run says so.
    was_made = "/revision/" in call
    assert (hub.head(TARGET) == before) != was_made
    hub.clear_faults()
    assert send(grown, check(client), client).already == was_made


@pytest.mark.case("F-10")
@pytest.mark.parametrize("call", CALLS_OF_A_PUSH)
def test_no_call_of_a_push_waits_for_ever(
    hub: Hub, grown: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with short_patience(monkeypatch):
        fault = hub.fault(call, delay_s=5, times=999)
        client = HubClient(ALICE, hub.url)
        with pytest.raises(HubUnreachableError, match=r"no answer from the Hub .*Timeout"):
            send(grown, check(client), client)
        assert 1 <= fault.num_hits <= 12
        hub.clear_faults()
        send(grown, check(client), client)
    assert content(hub, TARGET).items() >= FILES.items()


def test_a_question_that_waits_says_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fault("whoami", delay_s=0.3)
    monkeypatch.setattr("hfgrow.hub.client._SILENCE_S", 0.05)
    check(HubClient(ALICE, hub.url))
    told = "asking the Hub who is logged in: no answer yet; waiting up to 60 s for it"
    assert told in caplog.messages


@contextmanager
def short_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let clients of the Hub wait a tenth of a second for an answer."""
    close_session()
    with monkeypatch.context() as patch:
        patch.setattr("hfgrow.hub.client.ANSWER_S", 0.1)
        patch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY", _bounded_client)
        yield
    close_session()
