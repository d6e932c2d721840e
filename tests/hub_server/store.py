"""Repositories as data: commits that are snapshots of paths, branches, tags and discussions.

Contents lie on disk in `Blobs`; everything here is in memory and is gone with the server.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .blobs import Blobs, git_oid, lfs_pointer

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
_LFS_NAME = re.compile(
    r"\.(safetensors|bin|gguf|pt|pth|ckpt|h5|onnx|msgpack|npy|npz|pkl|parquet"
    r"|arrow|zip|gz|tar|zst|model|spm)$"
)
_REGULAR_LIMIT_BYTES = 10_000_000
_counter = itertools.count()


@dataclass(frozen=True)
class Entry:
    """A file of a commit."""

    sha256: str
    size: int
    git_oid: str
    lfs: bool

    @property
    def pointer_size(self) -> int:
        """The size of the LFS pointer file, in bytes."""
        return len(lfs_pointer(self.sha256, self.size))

    @property
    def upload_oid(self) -> str:
        """The hash by which the client tells that a file has not changed."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A snapshot of all files, and where it comes from."""

    oid: str
    title: str
    message: str
    author: str
    date: str
    parent: str | None
    files: Mapping[str, Entry]


@dataclass
class Discussion:
    """A discussion, or a pull request with its own ref."""

    num: int
    title: str
    author: str
    is_pull_request: bool
    base_oid: str
    created_at: str
    status: str = "open"
    merge_oid: str | None = None
    events: list[dict[str, object]] = field(default_factory=list)


@dataclass
class Repo:
    """A model, dataset or space."""

    repo_type: str
    repo_id: str
    private: bool = False
    gated: str | bool = False
    granted: set[str] = field(default_factory=set)
    created_at: str = ""
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    discussions: dict[int, Discussion] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organisation that owns it."""
        return self.repo_id.split("/")[0]

    @property
    def url_path(self) -> str:
        """The path of its page: models have no prefix."""
        return self.repo_id if self.repo_type == "model" else f"{self.repo_type}s/{self.repo_id}"

    def ref_of(self, revision: str) -> str | None:
        """Return the full name of the branch, tag or pull request that a revision names."""
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return ref
        return None

    def at(self, revision: str) -> Commit | None:
        """Return the commit that a branch, tag, ref or commit hash names."""
        ref = self.ref_of(revision)
        return self.commits.get(self.refs[ref] if ref is not None else revision)

    def history(self, commit: Commit) -> list[Commit]:
        """Return a commit and its ancestors, newest first."""
        found = [commit]
        while found[-1].parent is not None:
            found.append(self.commits[found[-1].parent])
        return found

    def add(
        self, ref: str, files: Mapping[str, Entry], title: str, author: str, message: str = ""
    ) -> Commit:
        """Put a commit on top of a ref and move the ref to it."""
        parent = self.refs.get(ref)
        seed = f"{self.repo_type} {self.repo_id} {parent} {title} {next(_counter)} {now()}"
        oid = hashlib.sha1(seed.encode()).hexdigest()
        commit = Commit(oid, title, message, author, now(), parent, dict(files))
        self.commits[oid] = commit
        self.refs[ref] = oid
        return commit


class Store:
    """All repositories and the contents of their files."""

    def __init__(self, folder: Path, *, hollow: bool = False) -> None:
        """Start without repositories; contents already in the folder are kept."""
        self.blobs = Blobs(folder, hollow=hollow)
        self.repos: dict[tuple[str, str], Repo] = {}

    def create(
        self,
        repo_type: str,
        repo_id: str,
        *,
        author: str,
        private: bool = False,
        gated: str | bool = False,
    ) -> Repo:
        """Create a repository with the initial commit that the Hub makes."""
        repo = Repo(repo_type, repo_id, private, gated, created_at=now())
        files = {".gitattributes": self.entry(GITATTRIBUTES, lfs=False)}
        repo.add("refs/heads/main", files, "initial commit", author)
        self.repos[repo_type, repo_id] = repo
        return repo

    def entry(self, data: bytes | Path, *, lfs: bool) -> Entry:
        """Store a content and return the entry that refers to it."""
        if isinstance(data, Path):
            sha256, size = self.blobs.copy(data), data.stat().st_size
        else:
            sha256, size = self.blobs.put(data), len(data)
        return self.stored_entry(sha256, size, lfs=lfs)

    def stored_entry(self, sha256: str, size: int, *, lfs: bool) -> Entry:
        """Return an entry for a content that is already stored."""
        text = lfs_pointer(sha256, size) if lfs else self.blobs.path(sha256).read_bytes()
        return Entry(sha256, size, git_oid(text), lfs)


def goes_to_lfs(path: str, size: int, sample: bytes) -> bool:
    """Decide as the Hub does: by suffix, by size, and binary content is never a git blob."""
    if _LFS_NAME.search(path) or size > _REGULAR_LIMIT_BYTES:
        return True
    return b"\0" in sample


def now() -> str:
    """Return the present time as the Hub writes times."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
