"""What each failure of the Hub client means to the user: one of our errors, with the next step.

The client hides the HTTP status in several places: a refused download of an uncached file is a
LocalEntryNotFoundError, a failed upload a RuntimeError, a failure inside hf_xet a plain OSError.
The status of the answer decides here, not the class that happened to carry it.
"""

import errno
import re
from collections.abc import Iterator

from hfgrow.errors import (
    GrowthError,
    HubConflictError,
    HubRefusedError,
    HubUnreachableError,
    ModelError,
    OutputError,
    UsageError,
    argument,
    printable,
    redacted,
)

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_HTTP_LIBRARIES = frozenset({"httpx", "httpx2", "httpcore", "httpcore2"})
# An address that nobody answers is wrong or down: waiting would only delay the message.
_HOPELESS = frozenset({"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "ProxyError"})
_LOCAL_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
)
# hf_xet tells the status in its text only. A 404 there is a Hub without Xet, not a refusal.
_REFUSAL_IN_TEXT = re.compile(r"\b(401|403) [A-Z]")
_RESET = re.compile(r";\s*t\s*=\s*(\d+)")


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may well succeed in a few seconds."""
    status = http_status(error)
    if status is not None:
        return status in TRANSIENT_STATUSES
    return any(
        _is_http_library(link) and type(link).__name__ not in _HOPELESS for link in _chain(error)
    )


def is_timeout(error: BaseException) -> bool:
    """Say whether no answer came in the time that there was."""
    return any(
        _is_http_library(link) and type(link).__name__.endswith("Timeout") for link in _chain(error)
    )


def retry_after_s(error: BaseException) -> int:
    """Return the seconds that the server asks to wait, 0 if it does not say."""
    from huggingface_hub.errors import HfHubHTTPError

    for link in _chain(error):
        if isinstance(link, HfHubHTTPError):
            after = link.response.headers.get("retry-after", "")
            reset = _RESET.search(link.response.headers.get("ratelimit", ""))
            if after.isdecimal():
                return int(after)
            return int(reset[1]) + 1 if reset else 0
    return 0


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status behind an exception, None if no answer came."""
    from huggingface_hub.errors import HfHubHTTPError

    for link in _chain(error):
        if isinstance(link, HfHubHTTPError):
            return int(link.response.status_code)
    if _is_xet(error) and (found := _REFUSAL_IN_TEXT.search(str(error))):
        return int(found[1])
    return None


def is_of_the_hub(error: BaseException) -> bool:
    """Say whether the Hub, the way there or the cache made an error, not what was read of it."""
    from huggingface_hub import errors

    if http_status(error) is not None or _is_xet(error):
        return True
    return any(
        _is_http_library(link)
        or isinstance(link, errors.OfflineModeIsEnabled | ConnectionError | TimeoutError)
        or (isinstance(link, OSError) and link.errno in _LOCAL_DISK)
        for link in _chain(error)
    )


def translated(
    error: Exception, what: str, *, endpoint: str, repo_id: str, sent_token: bool
) -> GrowthError | None:
    """Return the error to raise in place of one of the client's, None if it is none of those.

    Args:
        error: What the client raised.
        what: What was being done, such as "pulling org/name".
        endpoint: The address of the Hub, for hints.
        repo_id: The repository, for hints, or an empty string.
        sent_token: Whether the requests carried a token.
    """
    status = http_status(error)
    if status is None:
        return _without_answer(error, what)
    if status in (409, 412):
        changed = ", the repository changed meanwhile" if repo_id else ""
        return HubConflictError(
            f"{what}: the Hub answered {status}{changed}{_said(error)}",
            hint=_again(what) + f", or add {argument('create_pr')}" * _writes(what),
        )
    if status == 408 or status == 429 or status >= 500:
        wait = retry_after_s(error)
        return HubUnreachableError(
            f"{what}: the Hub answered {status}{_said(error)}",
            hint=f"try again in {wait} s" if wait else "try again later; nothing is lost",
        )
    return _refusal(error, status, what, f"{endpoint}/{repo_id}", endpoint, sent_token)


def _refusal(
    error: Exception, status: int, what: str, page: str, endpoint: str, sent_token: bool
) -> GrowthError:
    from huggingface_hub import errors

    kinds = tuple(type(link) for link in _chain(error))

    def carries(kind: type[Exception]) -> bool:
        return any(issubclass(found, kind) for found in kinds)

    login = "hf auth login"
    kind = "dataset" if "/datasets/" in page else "model"
    if carries(errors.GatedRepoError):
        first = "" if sent_token else f"{login}, then "
        return HubRefusedError(
            f"{what}: the {kind} is gated, and access has not been granted ({status})",
            hint=f"{first}ask for access at {page}",
        )
    if carries(errors.DisabledRepoError):
        return HubRefusedError(
            f"{what}: the repository is disabled ({status}){_said(error)}",
            hint=f"{page} may say why",
        )
    if carries(errors.RevisionNotFoundError):
        return HubRefusedError(
            f"{what}: there is no such revision ({status})",
            hint=f"branches and commits are listed at {page}/commits/main",
        )
    if carries(errors.EntryNotFoundError) and status == 404:
        return HubRefusedError(
            f"{what}: there is no such file ({status})", hint=f"look at {page}/tree/main"
        )
    if carries(errors.RepositoryNotFoundError):
        secret = "hidden from this token" if sent_token else "private"
        return HubRefusedError(
            f"{what}: there is no such {kind}, or it is {secret} ({status})",
            hint="check the spelling" if sent_token else f"check the spelling, or {login}",
        )
    if status == 401:
        found = "the token was rejected" if sent_token else "a login is needed"
        return HubRefusedError(f"{what}: {found} (401)", hint=login)
    if status == 403:
        return HubRefusedError(
            f"{what}: the token has no right to do this (403){_said(error)}",
            hint=f"give it write access at {endpoint}/settings/tokens, then {login}"
            if _writes(what) or page.endswith("/")
            else f"ask the owner for access at {page}, or {login} as somebody who has it",
        )
    if status == 404:
        step = f"check the name, and that {endpoint} is the Hub you mean"
    elif status == 413 and _writes(what):
        step = f"smaller files may pass: {argument('max_shard_size', 'SIZE')}"
    else:
        step = f"look at {page}; if nothing is wrong there, report the answer to the Hub"
    return HubRefusedError(f"{what}: the Hub answered {status}{_said(error)}", hint=step)


def _writes(what: str) -> bool:
    return what.startswith(("pushing", "creating"))


def _again(what: str) -> str:
    # A growth whose push failed is not grown again.
    return "push again" if _writes(what) else "run the same command again"


def _without_answer(error: Exception, what: str) -> GrowthError | None:
    from huggingface_hub import errors

    chain = tuple(_chain(error))
    root = chain[-1]
    text = printable(redacted(" ".join(str(root).split())), 200)
    if any(isinstance(link, errors.OfflineModeIsEnabled) for link in chain):
        return HubUnreachableError(
            f"{what}: not in the cache, and offline mode is on", hint="unset HF_HUB_OFFLINE"
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return HubRefusedError(f"{what}: a login is needed", hint="hf auth login")
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{what}: {text}")
    if isinstance(error, ValueError) and "Invalid metadata in README.md" in str(error):
        return ModelError(f"{what}: {text}", hint="correct the metadata at the top of README.md")
    if any(_is_http_library(link) for link in chain):
        return HubUnreachableError(
            f"{what}: no answer from the Hub ({type(root).__name__}: {text})",
            hint="check the connection, and push again: nothing is sent twice"
            if _writes(what)
            else "check the connection; with HF_HUB_OFFLINE=1 the cache alone is used",
        )
    if isinstance(error, OSError) and error.errno in _LOCAL_DISK:
        return OutputError(
            f"{what}: cannot write to the cache: {error.strerror}",
            hint="free space, or set HF_HOME",
        )
    if _is_xet(error):
        return HubUnreachableError(
            f"{what}: the Xet storage failed: {text}",
            hint="HF_HUB_DISABLE_XET=1 transfers without it",
        )
    if isinstance(error, OSError):
        return HubUnreachableError(f"{what}: {text}", hint=_again(what))
    if isinstance(error, LookupError | ValueError | TypeError | RuntimeError | AssertionError):
        return HubUnreachableError(
            f"{what}: the Hub's answer makes no sense ({type(root).__name__}: {text})"
        )
    return None


def _said(error: BaseException) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    for link in _chain(error):
        if isinstance(link, HfHubHTTPError) and link.server_message:
            return ": " + printable(redacted(" ".join(link.server_message.split())), 200)
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        link = link.__cause__


def _is_http_library(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _HTTP_LIBRARIES


def _is_xet(error: BaseException) -> bool:
    """Say whether hf_xet raised this: it uses builtin classes, so its frames must tell."""
    if type(error).__module__ not in ("builtins", "hf_xet"):
        return type(error).__name__ == "XetDownloadError"
    trace = error.__traceback__
    while trace is not None:
        if "xet" in trace.tb_frame.f_code.co_name:
            return True
        trace = trace.tb_next
    return False
