"""Serve a hub until terminated: python -m tests.hub_server --port 0 --folder DIR [--xet DIR].

The first line on stdout is the address, the second the token of the user alice.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from .access import ALICE
from .server import Hub


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--folder", type=Path, help="where file contents go")
    parser.add_argument("--xet", type=Path, help="folder of the local xet storage")
    parser.add_argument("--hollow", action="store_true", help="hash LFS uploads and drop them")
    arguments = parser.parse_args()
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    with Hub(
        folder=arguments.folder,
        xet=arguments.xet,
        port=arguments.port,
        hollow=arguments.hollow,
    ) as hub:
        # In one write, also where Python does not buffer: a reader may have gone after a line.
        sys.stdout.write(f"{hub.url}\n{ALICE}\n")
        sys.stdout.flush()
        end.wait()


if __name__ == "__main__":
    main()
