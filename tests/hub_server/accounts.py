"""Who am I: the routes about the caller rather than a repository."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import caller
from .errors import HubError


async def whoami(request: Request) -> Response:
    """Describe the owner of the token."""
    user = caller(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    orgs = [
        {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": "write"}
        for name in user.orgs
    ]
    token = {"displayName": "test", "role": user.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    return JSONResponse(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name.title(),
            "isPro": False,
            "canPay": False,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


async def agent_harnesses(_request: Request) -> Response:
    """Answer the registry that the client asks for once with a fresh home."""
    return JSONResponse({})


ROUTES = [
    Route("/api/whoami-v2", whoami),
    Route("/api/agent-harnesses", agent_harnesses),
]
