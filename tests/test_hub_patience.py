"""How long a Hub that answers 5xx for ever is waited for, and what is said meanwhile."""

import logging

import pytest

from hfgrow.errors import HubUnreachableError
from hfgrow.hub.client import HubClient
from hfgrow.hub.pull import pull
from hfgrow.hub.resolve import resolve
from tests.hub import ALICE, Hub
from tests.hub.pulls import BASE

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
