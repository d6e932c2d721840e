"""Restore files from a local xet folder: run by the hub as a process of its own.

Reads a JSON list of [xet hash, size, target path] from stdin; the argument is the folder.
"""

from __future__ import annotations

import json
import sys

from hf_xet import XetFileInfo, XetSession  # type: ignore[import-untyped]


def main() -> None:
    """Download the files of the plan into their target paths."""
    session = XetSession()
    with session.new_file_download_group(endpoint=f"local://{sys.argv[1]}") as group:
        for xet_hash, size, target in json.load(sys.stdin):
            group.start_download_file(XetFileInfo(xet_hash, size), target)


if __name__ == "__main__":
    main()
