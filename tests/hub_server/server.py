"""The server: a thread that serves a hub on loopback, and what a test asks it."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import build
from .faults import Address, Fault, Faults, Record
from .site import Knobs, Site
from .store import Commit, Repo, Store, goes_to_lfs

_START_LIMIT_S = 10.0


class Hub:
    """A Hub-compatible server on 127.0.0.1 that lives as long as the `with` block.

    Args:
        folder: where file contents go; None is a temporary folder, removed at the end.
        xet: the folder of the local xet storage; None is a hub without xet.
        port: 0 takes a free one.
        hollow: whether the contents of LFS uploads are dropped once they are hashed.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        xet: Path | None = None,
        port: int = 0,
        hollow: bool = False,
    ) -> None:
        """Start the server and wait until it answers."""
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="hub-")
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self.knobs = Knobs(xet=xet)
        self.store = Store(self.folder, hollow=hollow)
        connections: dict[Address, asyncio.Transport] = {}
        self._layer = Faults(build(Site(self.store, self.knobs)), connections)
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            self._layer,
            http=_protocol(connections),
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="hub", daemon=True
        )
        self._thread.start()
        limit = time.monotonic() + _START_LIMIT_S
        while not self._server.started:
            if time.monotonic() > limit or not self._thread.is_alive():
                raise RuntimeError("the hub did not start")
            time.sleep(0.005)

    def __enter__(self) -> Self:
        """Return the running hub."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def stop(self) -> None:
        """Stop the server and wait for its thread."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def log(self) -> list[Record]:
        """The requests so far, in the order of arrival."""
        return self._layer.log

    def lines(self, pattern: str = "") -> list[str]:
        """Return the lines "METHOD /path?query" of the log that contain a text."""
        return [record.line for record in self.log if pattern in record.line]

    def fault(
        self,
        pattern: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        times: int = 1,
        skip: int = 0,
        delay_s: float = 0.0,
        cut_after_bytes: int | None = None,
        cut_upload_after_bytes: int | None = None,
        drop: bool = False,
        corrupt_at: int | None = None,
    ) -> Fault:
        """Inject a fault, see `Fault` for the arguments; its `num_hits` tells if it happened."""
        fault = Fault(
            pattern,
            status,
            headers or {},
            times,
            skip,
            delay_s,
            cut_after_bytes,
            cut_upload_after_bytes,
            drop,
            corrupt_at,
        )
        self._layer.faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._layer.faults.clear()

    def seed(
        self,
        repo_id: str,
        files: Mapping[str, bytes | Path],
        *,
        private: bool = False,
        gated: bool = False,
        repo_type: str = "model",
        message: str = "seed",
    ) -> str:
        """Put files into a repository, which is created if absent, and return the new commit."""
        author = repo_id.split("/")[0]
        repo = self.store.repos.get((repo_type, repo_id))
        if repo is None:
            gate = "manual" if gated else False
            repo = self.store.create(repo_type, repo_id, author=author, private=private, gated=gate)
        snapshot = dict(repo.commits[self.head(repo_id, repo_type=repo_type)].files)
        for path, data in files.items():
            size, sample = _size_and_sample(data)
            lfs = goes_to_lfs(path, size, sample)
            snapshot[path] = self.store.entry(data, lfs=lfs)
        return repo.add("refs/heads/main", snapshot, message, author).oid

    def repo(self, repo_id: str, *, repo_type: str = "model") -> Repo:
        """Return a repository: its flags may be changed, and users `granted` past a gate."""
        return self.store.repos[repo_type, repo_id]

    def head(self, repo_id: str, revision: str = "main", *, repo_type: str = "model") -> str:
        """Return the commit hash of a revision."""
        return self._commit(repo_id, revision, repo_type).oid

    def commits(
        self, repo_id: str, revision: str = "main", *, repo_type: str = "model"
    ) -> list[Commit]:
        """Return the commits of a revision, newest first; the last is the initial commit."""
        commit = self._commit(repo_id, revision, repo_type)
        return self.repo(repo_id, repo_type=repo_type).history(commit)

    def files(
        self, repo_id: str, revision: str = "main", *, repo_type: str = "model"
    ) -> dict[str, bytes | Path]:
        """Return the files of a revision: LFS objects as paths to read only, others as bytes."""
        found: dict[str, bytes | Path] = {}
        for path, entry in sorted(self._commit(repo_id, revision, repo_type).files.items()):
            blob = self.store.blobs.path(entry.sha256)
            found[path] = blob if entry.lfs else blob.read_bytes()
        return found

    def _commit(self, repo_id: str, revision: str, repo_type: str) -> Commit:
        commit = self.repo(repo_id, repo_type=repo_type).at(revision)
        if commit is None:
            raise KeyError(f"{repo_id} has no revision {revision}")
        return commit


def _listen(port: int) -> socket.socket:
    # asyncio sends small answers at once (TCP_NODELAY) only on a socket that names its protocol.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    return listening


def _size_and_sample(data: bytes | Path) -> tuple[int, bytes]:
    if isinstance(data, bytes):
        return len(data), data[:512]
    with data.open("rb") as file:
        return data.stat().st_size, file.read(512)


def _protocol(connections: dict[Address, asyncio.Transport]) -> type[H11Protocol]:
    """Return a protocol that notes its connections, so that a fault can close one."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            assert self.client is not None
            connections[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            assert self.client is not None
            connections.pop(self.client, None)

    return Protocol
