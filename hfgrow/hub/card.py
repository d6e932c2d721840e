"""Let the Hub judge a model card before anything is uploaded: a bad one then costs nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfgrow.errors import ModelError, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.failures import redact

if TYPE_CHECKING:
    from httpx2 import Response

_MAX_NBYTES = 5 * 1000 * 1000
# With these the Hub judges the card; any other failure is about the connection or the token.
_VERDICTS = frozenset({400, 413, 422})


def check_card(path: Path, client: HubClient) -> tuple[str, ...]:
    """Return the warnings of the Hub about a card.

    Raises:
        ModelError: The Hub rejects it: the message says why.
        HubUnreachableError: No answer.
    """
    raw = path.read_bytes()
    if len(raw) > _MAX_NBYTES:
        raise ModelError(f"{path.name} has {len(raw)} bytes; at most {_MAX_NBYTES} make a card")
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path.name} is not UTF-8 (byte {error.start})") from error
    response = client.ask(f"validating {path.name}", lambda: _submit(content, client))
    problems = _texts(response, "errors")
    if response.status_code in _VERDICTS or problems:
        why = "; ".join(problems) or response.headers.get("x-error-message") or "no reason given"
        raise ModelError(
            f"the Hub rejects {path.name} ({response.status_code}): {_clean(why)}",
            hint="correct the metadata at its top; nothing was uploaded",
        )
    return tuple(f"{path.name}: {_clean(text)}" for text in _texts(response, "warnings"))


def _submit(content: str, client: HubClient) -> "Response":
    from huggingface_hub import get_session, hf_raise_for_status

    response = get_session().post(
        f"{client.endpoint}/api/validate-yaml",
        json={"content": content, "repoType": "model"},
        headers=client.headers(),
    )
    if response.status_code not in _VERDICTS:
        hf_raise_for_status(response)
    return response


def _texts(response: "Response", kind: str) -> list[str]:
    try:
        answer: Any = response.json()
    except ValueError:
        return []
    items = answer.get(kind) if isinstance(answer, dict) else None
    return [str(item.get("message")) for item in items or [] if isinstance(item, dict)]


def _clean(text: str) -> str:
    return printable(redact(" ".join(text.split())), 300)
