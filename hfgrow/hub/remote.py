"""The files of a model on the Hub, read by ranges, so that looking costs no download."""

import re
from collections.abc import Mapping

from hfgrow.errors import HubUnreachableError, ModelError, printable
from hfgrow.hub.client import HubClient
from hfgrow.hub.listing import RemoteFile
from hfgrow.hub.resolve import ModelRef

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RemoteFiles:
    """The files of one pinned commit, without a local folder.

    Args:
        ref: A model that `pin` has returned.
        client: The connection.
    """

    def __init__(self, ref: ModelRef, client: HubClient) -> None:
        assert ref.repo_id is not None
        assert ref.revision is not None
        self._repo_id = ref.repo_id
        self._sha = ref.revision
        self._files: Mapping[str, RemoteFile] = ref.files
        self._client = client

    @property
    def label(self) -> str:
        """The repository and the first digits of the commit."""
        return f"{self._repo_id}@{self._sha[:7]}"

    @property
    def folder(self) -> str:
        """Empty: nothing lies here."""
        return ""

    def names(self) -> list[str]:
        """Return the sorted names of the files at the top level."""
        return sorted(self._files)

    def nbytes(self, name: str) -> int:
        """Return the size of a file."""
        if name not in self._files:
            raise ModelError(f"{self.label} has no file {printable(name)}")
        return self._files[name].nbytes

    def stamp(self, name: str) -> tuple[int, ...]:
        """Return nothing: a commit never changes."""
        return ()

    def read(self, name: str, start: int, nbytes: int) -> bytes:
        """Return a range of a file.

        Raises:
            HubRefusedError: Access is refused.
            HubUnreachableError: No answer, or not the bytes that were asked for.
        """
        stop = min(start + nbytes, self.nbytes(name))
        if stop <= start:
            return b""
        what = f"reading {name} of {self.label}"
        return self._client.ask(what, lambda: self._fetch(name, start, stop, what), self._repo_id)

    def _fetch(self, name: str, start: int, stop: int, what: str) -> bytes:
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

        url = hf_hub_url(self._repo_id, name, revision=self._sha, endpoint=self._client.endpoint)
        # The session drops the token by itself when the Hub sends it on to its storage.
        headers = {
            **self._client.headers(),
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "identity",
        }
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            size = self.nbytes(name)
            if response.status_code == 206:
                found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
                good = found is not None and int(found[1]) == start
                good = good and found is not None and found[3] in ("*", str(size))
            else:
                good = response.status_code == 200 and start == 0
            if not good:
                raise HubUnreachableError(f"{what}: the server did not send the range asked for")
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) >= stop - start:
                    break
        if len(received) < stop - start:
            raise HubUnreachableError(
                f"{what}: the server sent {len(received)} bytes of {stop - start}"
            )
        return bytes(received[: stop - start])
