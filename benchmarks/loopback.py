"""A Hub on loopback in a process of its own, empty each time, and what clients are told of it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environments import ROOT


@contextmanager
def fresh_hub(folder: Path) -> Iterator[dict[str, str]]:
    """Serve a Hub without xet that hashes LFS uploads and keeps only their size.

    So the disk of the server, which would be another machine's, is not measured.

    Args:
        folder: Where its files lie while it serves.

    Yields:
        The environment of a client that is logged in to it, as user `alice`.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="hub-") as place:
        command = [sys.executable, "-m", "tests.hub_server", "--hollow", "--folder", place]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url, token = (server.stdout.readline().strip() for _ in range(2))
            yield {
                "HF_ENDPOINT": url,
                "HF_TOKEN": token,
                "HF_HOME": str(Path(place, "home")),
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_UPDATE_CHECK": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "NO_PROXY": ",".join(
                    filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost"))
                ),
            }
        finally:
            server.terminate()
            server.wait()
