"""The one edge to huggingface_hub: a client that says who it is, and whose failures are ours."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from hfgrow import __version__
from hfgrow.errors import GrowthError, UsageError
from hfgrow.hub import failures

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
QUESTION_WAITS_S = (1.0, 2.0, 4.0, 8.0)
# Most of a download the client library repeats by itself, up to 23 s each time.
TRANSFER_WAITS_S = (2.0, 4.0)
_LONGEST_WAIT_S = 60
# The client library would wait for ever: for a connection, and for the next byte of an answer.
CONNECT_S, ANSWER_S = 10.0, 60.0
# A question that takes longer is told to be waiting.
_SILENCE_S = 5.0
# About 48 s of patience.
_XET_ATTEMPTS = "3"
_log = logging.getLogger(__name__)


class HubClient:
    """A connection to the Hub. Making one costs nothing: the client library loads on first use.

    Args:
        token: The token to send; None is the one that `hf auth login` stored, or HF_TOKEN.
        endpoint: The address of the Hub; None is HF_ENDPOINT, or the public one.
        anonymous: Whether it asks for a stranger: without any token, and a name is then one of the
            Hub, never a folder or something in the cache of this machine.

    Raises:
        UsageError: The token cannot be sent in a header.
    """

    def __init__(
        self, token: str | None = None, endpoint: str | None = None, *, anonymous: bool = False
    ) -> None:
        token = token.strip() if token else None
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise UsageError("the token holds characters that no token has", hint="hf auth login")
        self._token = token or None
        self._endpoint = endpoint
        self.anonymous = anonymous

    @cached_property
    def api(self) -> "HfApi":
        """The client of huggingface_hub."""
        # hf_xet alone asks a storage that is down for more than six minutes, without a word.
        os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", _XET_ATTEMPTS)
        from huggingface_hub import HfApi, get_session, set_client_factory

        if get_session().timeout.read is None:
            set_client_factory(_bounded_client)
        return HfApi(
            endpoint=self._endpoint,
            token=self._given,
            library_name="hfgrow",
            library_version=__version__,
        )

    @property
    def endpoint(self) -> str:
        """The address of the Hub, without a trailing slash."""
        return self.api.endpoint

    @property
    def has_token(self) -> bool:
        """Whether requests carry a token."""
        return bool(self._sent_token())

    @property
    def _given(self) -> str | bool | None:
        """The token as the client library takes it, which sends none for False."""
        return False if self.anonymous else self._token

    def _sent_token(self) -> str:
        from huggingface_hub import get_token

        return "" if self.anonymous else self._token or get_token() or ""

    def headers(self) -> dict[str, str]:
        """Return the headers of a request to the Hub itself, the token among them."""
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # not typed as public

        return build_hf_headers(
            token=self._given, library_name="hfgrow", library_version=__version__
        )

    @contextmanager
    def translating(self, what: str, repo_id: str = "") -> Iterator[None]:
        """Turn every failure of the client inside the block into one of ours.

        Args:
            what: What is being done, such as "pulling org/name": the start of the message.
            repo_id: The repository whose page a hint may name.

        Raises:
            HubRefusedError: The Hub answered no.
            HubUnreachableError: No answer came, or one that makes no sense.
            HubConflictError: The repository changed, or exists.
            ModelError: The model card is not valid.
            OutputError: The cache cannot be written.
        """
        try:
            yield
        except GrowthError:
            raise
        except Exception as error:
            ours = failures.translated(
                error,
                what,
                endpoint=self.endpoint,
                repo_id=repo_id,
                sent_token=self.has_token,
            )
            if ours is None:
                raise
            # A server may repeat what it was sent, and not every token begins with hf_.
            if (token := self._sent_token()) and token in str(ours):
                ours.args = (str(ours).replace(token, "***"),)
            raise ours from error

    def ask(
        self,
        what: str,
        call: Callable[[], T],
        repo_id: str = "",
        *,
        waits_s: Sequence[float] = QUESTION_WAITS_S,
        is_question: bool = True,
    ) -> T:
        """Return what a repeatable request returns, with patience for a busy server.

        The client library repeats uploads and downloads, but not the questions before and after
        them, and one 503 must not cost a run of hours.

        Args:
            what: As in `translating`.
            call: Performs the request.
            repo_id: As in `translating`.
            waits_s: The pauses between the attempts, in seconds.
            is_question: Whether what takes long has no answer yet; a transfer may be under way.

        Raises:
            GrowthError: As in `translating`.
        """
        told = partial(_told_where_silent, what) if is_question else nullcontext
        with self.translating(what, repo_id):
            for i, wait_s in enumerate(waits_s):
                try:
                    with told():
                        return call()
                except Exception as error:
                    asked_s = failures.retry_after_s(error)
                    if not failures.is_transient(error) or asked_s > _LONGEST_WAIT_S:
                        raise
                    # Who was silent for so long is asked once more, and no minutes on end.
                    if i and waits_s == QUESTION_WAITS_S and failures.is_timeout(error):
                        raise
                    pause_s = max(wait_s, asked_s)
                    cause = failures.http_status(error) or type(error).__name__
                _log.warning("%s: %s; trying again in %g s", what, cause, pause_s)
                time.sleep(pause_s)
            with told():
                return call()


def _bounded_client() -> Any:
    """Make a client as huggingface_hub does, but one that gives up waiting."""
    from huggingface_hub.utils._http import default_client_factory

    client: Any = default_client_factory()
    client.timeout = (CONNECT_S, ANSWER_S, ANSWER_S, None)
    client.event_hooks["request"].append(_bound)
    return client


def _bound(request: Any) -> None:
    """Bound a request that the library sends out with no bound of its own."""
    bounds = request.extensions.setdefault("timeout", {})
    for key, most_s in (("connect", CONNECT_S), ("read", ANSWER_S), ("write", ANSWER_S)):
        if bounds.get(key) is None:
            bounds[key] = most_s


@contextmanager
def _told_where_silent(what: str) -> Iterator[None]:
    """Tell that the Hub has not answered yet, if the block takes long."""
    said = f"{what}: no answer yet; waiting up to {ANSWER_S:g} s for it"
    timer = threading.Timer(_SILENCE_S, _log.warning, [said])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
