"""Every refusal of the Hub at every call of a pull and of a push: exit code, status, next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfgrow.errors import GrowthError
from hfgrow.hub.client import HubClient
from hfgrow.hub.pull import pull
from hfgrow.hub.resolve import resolve
from tests.hub import ALICE, Hub
from tests.hub.fixtures import IGNORE_CLIENT_WARNING
from tests.hub.pulls import BASE
from tests.hub.pushes import FILES, TARGET, check, content, send

pytestmark = pytest.mark.filterwarnings(IGNORE_CLIENT_WARNING)
EXIT_CODES = {401: 4, 403: 4, 404: 4, 409: 6, 412: 6, 413: 4, 429: 5, 503: 5}
CARD_VERDICTS = {413: 3}


def assert_told(error: GrowthError, status: int, code: int | None = None) -> None:
    assert error.exit_code == (code or EXIT_CODES[status]), error
    assert str(status) in str(error)
    assert error.hint
    assert str(error).isprintable()


@pytest.mark.case("F-1", "F-4", "F-6", "F-7", "F-8")
@pytest.mark.parametrize("status", EXIT_CODES)
@pytest.mark.parametrize(
    "call",
    ["GET /api/models/bob/base$", "/tree/", "HEAD .*/resolve/", "GET .*/resolve/", "/storage/"],
)
def test_a_pull_tells_what_the_hub_answered(hub: Hub, call: str, status: int) -> None:
    hub.seed("bob/base", BASE)
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(call.replace("base$", "base.*blobs"), status=status, times=999)
    with pytest.raises(GrowthError) as caught:
        pull(resolve("bob/base", client), client)
    assert fault.num_hits > 0
    assert_told(caught.value, status)
    assert "--create-pr" not in caught.value.hint
    hub.clear_faults()
    assert (pull(resolve("bob/base", client), client) / "LICENSE").read_bytes() == BASE["LICENSE"]


@pytest.mark.case("F-1", "F-2", "F-5", "F-6", "F-7", "F-8", "F-16", "F-22")
@pytest.mark.parametrize("status", EXIT_CODES)
@pytest.mark.parametrize(
    "call",
    [
        "GET /api/whoami",
        "GET /api/models/alice",
        "POST /api/repos/create",
        "POST /api/validate-yaml",
        "POST .*/preupload/",
        "POST .*/objects/batch",
        "PUT ",
        "POST .*/commit/",
    ],
)
def test_a_push_tells_what_the_hub_answered_and_changes_nothing(
    hub: Hub, grown: Path, call: str, status: int
) -> None:
    client = HubClient(ALICE, hub.url)
    fault = hub.fault(call, status=status, times=999)
    with pytest.raises(GrowthError) as caught:
        send(grown, check(client), client)
    assert fault.num_hits > 0
    assert_told(caught.value, status, CARD_VERDICTS.get(status) if "yaml" in call else None)
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
    assert_told(caught.value, status)
    # What only reads the new commit comes after it: the push is there, and the next run says so.
    was_made = "/revision/" in call
    assert (hub.head(TARGET) == before) != was_made
    hub.clear_faults()
    assert send(grown, check(client), client).already == was_made
