"""The one exception that a route raises to answer with an error of the Hub."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class HubError(Exception):
    """An error answer: a status, a text, and the error code that the client dispatches on.

    Args:
        status: the HTTP status.
        message: the text of the JSON body and of the X-Error-Message header.
        code: the X-Error-Code header: RepoNotFound, RevisionNotFound, EntryNotFound or GatedRepo.
        headers: further headers of the answer.
        extra: further members of the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        """Keep the parts of the answer."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.extra = extra or {}


def answer(_request: Request, error: Exception) -> Response:
    """Turn a HubError into its response."""
    assert isinstance(error, HubError)
    headers = {"X-Error-Message": error.message, **error.headers}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    body = {"error": error.message, **error.extra}
    return JSONResponse(body, status_code=error.status, headers=headers)
