"""Injected faults and the request log, as a layer around the whole application."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Address = tuple[str, int]


@dataclass
class Fault:
    """What goes wrong with the requests whose line "METHOD /path?query" matches a regex.

    Args:
        pattern: a regular expression, searched for in the line.
        status: answer with this status instead of performing the request.
        headers: headers of that answer, for example Retry-After.
        times: how many matching requests are hit.
        skip: how many matching requests pass before the first hit.
        delay_s: seconds to wait before anything else.
        cut_after_bytes: close the connection after this many bytes of the response body.
        cut_upload_after_bytes: close it after this many bytes of the request body.
        drop: perform the request, then close the connection without an answer.
        corrupt_at: flip the bits of the byte at this offset of the response body.
        num_hits: counts the requests that were hit.
    """

    pattern: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    skip: int = 0
    delay_s: float = 0.0
    cut_after_bytes: int | None = None
    cut_upload_after_bytes: int | None = None
    drop: bool = False
    corrupt_at: int | None = None
    num_hits: int = 0

    def takes(self, line: str) -> bool:
        """Tell whether this request is to be hit, and count it."""
        if re.search(self.pattern, line) is None:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.num_hits >= self.times:
            return False
        self.num_hits += 1
        return True


@dataclass
class Record:
    """A request that arrived: its line "METHOD /path?query" and what the hub made of it.

    `authorized` tells whether it carried an Authorization header. `status` is None if a fault cut
    the connection before the request was performed.
    """

    line: str
    range: str | None
    authorized: bool
    status: int | None = None


class Faults:
    """The layer: it logs each request, then lets the first matching fault act on it."""

    def __init__(self, app: ASGIApp, connections: dict[Address, asyncio.Transport]) -> None:
        """Wrap an application; `connections` is kept by the server, by client address."""
        self.app = app
        self.connections = connections
        self.faults: list[Fault] = []
        self.log: list[Record] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        query = scope["query_string"].decode()
        line = f"{scope['method']} {scope['raw_path'].decode()}{'?' + query if query else ''}"
        headers = Headers(scope=scope)
        record = Record(line, headers.get("range"), "authorization" in headers)
        self.log.append(record)
        fault = next((fault for fault in self.faults if fault.takes(line)), None)
        # Routes match on the path as it was sent: a revision is one quoted segment.
        scope = {**scope, "path": scope["raw_path"].decode()}
        exchange = _Exchange(record, fault, receive, send, self.connections[scope["client"]])
        if fault is not None:
            await asyncio.sleep(fault.delay_s)
            if fault.status is not None:
                await exchange.answer(fault.status, fault.headers)
                return
        with suppress(ClientDisconnect):
            await self.app(scope, exchange.receive, exchange.send)
        await exchange.finish()


class _Exchange:
    """The two directions of one request, with the fault in between."""

    def __init__(
        self,
        record: Record,
        fault: Fault | None,
        receive: Receive,
        send: Send,
        connection: asyncio.Transport,
    ) -> None:
        self.record = record
        self.fault = fault or Fault("")
        self._receive = receive
        self._send = send
        self.connection = connection
        self.num_received = 0
        self.num_sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self.num_received += len(message.get("body", b""))
        limit = self.fault.cut_upload_after_bytes
        if limit is not None and self.num_received > limit:
            self.connection.abort()
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self.connection.is_closing():
            return
        if message["type"] == "http.response.start":
            self.record.status = message["status"]
        if self.fault.drop:
            return
        body = bytes(message.get("body", b""))
        if message["type"] == "http.response.body" and body:
            message = {**message, **self._damaged(body, bool(message.get("more_body")))}
            self.num_sent += len(body)
        await self._send(message)
        limit = self.fault.cut_after_bytes
        if limit is not None and self.num_sent > limit:
            self.connection.close()

    async def answer(self, status: int, headers: Mapping[str, str]) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        text = f"injected fault {status}"
        raw = {"content-length": str(len(text)), "x-error-message": text, **headers}
        fields = [(name.lower().encode(), value.encode()) for name, value in raw.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": fields})
        await self.send({"type": "http.response.body", "body": text.encode()})

    async def finish(self) -> None:
        if self.fault.drop:
            self.connection.abort()
        if self.connection.is_closing():
            # The server looks at the connection next, so it must have seen the end.
            while (await self._receive())["type"] != "http.disconnect":
                pass

    def _damaged(self, body: bytes, more: bool) -> dict[str, object]:
        at, limit = self.fault.corrupt_at, self.fault.cut_after_bytes
        if at is not None and self.num_sent <= at < self.num_sent + len(body):
            damaged = bytearray(body)
            damaged[at - self.num_sent] ^= 0xFF
            body = bytes(damaged)
        if limit is not None and self.num_sent + len(body) > limit:
            return {"body": body[: max(0, limit - self.num_sent)], "more_body": True}
        return {"body": body, "more_body": more}
